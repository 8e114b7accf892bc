"""What figures are worth, and how pairs are compared."""

import pytest

from models.errors import BadRequestError
from serving.tuning.scoring import NONE, paired, pareto, parse_slo, score
from serving.tuning.trials import Reading
from tests.serving.tuning.world import figures

SLO = {"ttft_p99": 2.0, "tpot_p99": 0.1}


def test_slo_is_read() -> None:
    assert parse_slo(" ttft_p99=2, tpot_p99 = .1 ") == SLO
    assert parse_slo("") == {}


@pytest.mark.parametrize("text", ["ttft=2", "e2e_p99=1", "ttft_p99=0", "ttft_p99=-1", "x", "p99"])
def test_slo_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="ttft_p99=2"):
        parse_slo(text)


def test_each_goal_counts_what_it_says() -> None:
    one = figures(rate=1000.0, tpot_s=0.01)
    assert score(one, "throughput", SLO).value == 1000.0
    assert score(one, "latency", SLO).value == pytest.approx(100.0)
    assert score(one, "balanced", SLO).value == pytest.approx((1000.0 * 100.0) ** 0.5)


def test_what_keeps_the_slo_comes_before_what_does_not() -> None:
    kept, broken = figures(rate=100.0), figures(rate=100_000.0, tpot_s=0.2)
    for goal in ("throughput", "latency", "balanced"):
        assert score(kept, goal, SLO) > score(broken, goal, SLO) > NONE  # type: ignore[arg-type]


def test_of_two_that_break_the_slo_the_nearer_one_is_better() -> None:
    near, far = figures(tpot_s=0.1), figures(tpot_s=0.4)
    assert score(near, "throughput", SLO) > score(far, "throughput", SLO)


def test_nothing_is_worth_nothing() -> None:
    assert score(None, "throughput", SLO) == NONE


def test_front_has_what_nothing_else_beats_in_both() -> None:
    levels = [
        Reading(concurrency=n, output_rate=rate, tpot_p50=tpot_s)
        for n, rate, tpot_s in [(1, 100, 0.01), (8, 90, 0.02), (16, 400, 0.03), (32, 400, 0.04)]
    ]
    front = pareto((level, {"max_num_seqs": level.concurrency}) for level in levels)
    assert [(level.concurrency, how) for level, how in front] == [
        (1, {"max_num_seqs": 1}), (16, {"max_num_seqs": 16}),
    ]  # fmt: skip
    assert pareto([(Reading(concurrency=1), {})]) == []


def test_interval_covers_the_ratio_and_narrows_with_even_pairs() -> None:
    even = paired([(110.0, 100.0)] * 10)
    assert even is not None
    assert (even.ratio, even.low, even.high) == pytest.approx((1.1, 1.1, 1.1))
    mixed = paired([(100.0, 100.0), (120.0, 100.0)] * 5)
    assert mixed is not None
    assert mixed.low < mixed.ratio < mixed.high
    assert 1.0 < mixed.low < mixed.high < 1.2


def test_pairs_with_a_failed_run_do_not_count() -> None:
    assert paired([(0.0, 100.0), (110.0, 100.0)]) is None
    found = paired([(0.0, 1.0), (2.0, 1.0), (2.0, 1.0)])
    assert found is not None
    assert found.pairs == 2
