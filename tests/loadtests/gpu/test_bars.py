"""What figures come to."""

from loadtests.gpu.bars import Bar, bars, table
from loadtests.gpu.runner import Result


def results() -> list[Result]:
    return [
        Result("bare", "ok", figures={"start_s": 60.0, "c1": {"tokens_s": 100.0},
                                      "c256": {"tokens_s": 1000.0}}),
        Result("platform", "timed out", "it took longer than 330 s", 330.0,
               {"c1": {"tokens_s": 99.0}}, (500, 900)),
        Result("roofline", "ok", figures={"decode_share": 0.55}),
        Result("sleep", "ok", figures={"level_1": {"first_token_s": [2.5, 1.5, 1.0]}}),
    ]  # fmt: skip


def test_bars_are_met_missed_or_not_measured() -> None:
    found = {bar.what: (bar.value, bar.met) for bar in bars(results())}
    assert found == {
        "platform over bare engine, 1 at once": (0.99, True),
        "platform over bare engine, 256 at once": (None, None),
        "decode over its roofline": (0.55, False),
        "wake from sleep level 1": (1.5, True),
        "cold start of the platform": (None, None),
        "GPU memory left behind": (400.0, False),
    }


def test_figure_that_is_no_number_is_not_measured() -> None:
    assert Bar("x", float("nan"), 1.0).met is None


def test_nothing_measured_is_nothing_met() -> None:
    assert {bar.met for bar in bars([])} == {None}


def test_table_names_each_part_and_each_bar() -> None:
    text = table(results(), bars(results()), binding=True)
    assert "timed out" in text
    assert "it took longer than 330 s" in text
    assert "500, 900" in text
    assert "MISSED" in text
    assert "at most 10" in text


def test_table_of_a_cpu_promises_nothing() -> None:
    text = table(results(), bars(results()), binding=False)
    assert "MISSED" not in text
    assert "none on a CPU" in text
