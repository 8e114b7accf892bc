"""Comparisons: the best knobs win, the table and the JSON say what was asked for."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from autoscaler.__main__ import parse_policies, parse_seconds, simulate
from autoscaler.report import as_json, as_table
from autoscaler.rivals import Static
from autoscaler.search import Candidate, Grid, best_of
from autoscaler.simulate import Budget, Scenario, run_static, run_within, work_ahead_s
from autoscaler.traces import make_trace
from autoscaler.tuning import GRIDS, POLICIES, compare
from models.errors import BadRequestError

TRACE = make_trace("even", [(i / 5, 2000, 50) for i in range(600)])
SCENARIO = Scenario(TRACE, places=8)


def grid_of(*engines: int) -> Grid:
    def grid(scenario: Scenario) -> Iterator[Candidate]:
        yield from (Candidate(str(n), lambda n=n: Static(n)) for n in engines)  # type: ignore[misc]

    return grid


def test_cheapest_knobs_that_attain_win() -> None:
    best = best_of("static", SCENARIO, grid_of(7, 1, 3, 5))
    assert best.attainment >= 0.99
    assert best.knobs == "1"


def test_where_none_attains_the_highest_attainment_wins() -> None:
    crowd = Scenario(make_trace("crowd", [(0.0, 20_000, 10)] * 60), cold_starts_s=(0.1,), places=8)
    best = best_of("static", crowd, grid_of(1, 4, 2))
    assert best.attainment < 0.99
    assert best.knobs == "4"


def test_of_equal_knobs_the_first_ones_win() -> None:
    assert best_of("static", SCENARIO, grid_of(6, 4, 4)).knobs == "4"
    with pytest.raises(ValueError, match="no candidate"):
        best_of("static", SCENARIO, grid_of())


def test_a_run_is_given_up_where_the_rest_of_the_work_alone_passes_its_budget() -> None:
    ahead_s = work_ahead_s(SCENARIO)
    assert ahead_s[0] == pytest.approx(600 * (2000 / 35_000 + 49 * (0.008 / 128 + 0.000_12)))
    assert (ahead_s[-1], len(ahead_s)) == (0.0, 601)
    whole = run_static(SCENARIO, 3)
    enough = Budget(gpu_hours=whole.gpu_hours)
    assert within(enough) == whole.gpu_hours
    assert within(Budget(gpu_hours=0.99 * whole.gpu_hours)) is None


def within(budget: Budget) -> float | None:
    found = run_within(budget, replace(SCENARIO, initial=3), "static", Static(3))
    return None if found is None else found.gpu_hours


def test_processes_find_what_one_finds() -> None:
    short = replace(SCENARIO, trace=make_trace("short", [(i / 5, 2000, 50) for i in range(150)]))
    names = ["static", "hpa"]
    alone = compare(short, names)
    assert compare(short, names, jobs=2) == alone
    assert set(names) & set(GRIDS) == {"hpa"}


def test_json_has_the_promised_shape() -> None:
    outcomes = compare(SCENARIO, ["penstock", "static", "ray-serve"])
    found = json.loads(as_json(SCENARIO, outcomes))
    assert found["slo"] == {"ttft_s": 2.0, "tpot_s": 0.1, "attainment": 0.99}
    assert [p["name"] for p in found["policies"]] == ["penstock", "static", "ray-serve"]
    assert found["policies"][0].keys() >= {
        "name", "attainment", "gpu_hours", "ttft_p99_s", "tpot_p99_s", "cold_hits", "scale_events",
    }  # fmt: skip


def test_table_marks_a_missed_slo() -> None:
    crowd = Scenario(make_trace("crowd", [(0.0, 20_000, 10)] * 60))
    out = Console(file=io.StringIO(), width=200)
    out.print(as_table(crowd, [run_static(crowd, 1)]))
    assert "missed" in out.file.getvalue()  # type: ignore[attr-defined]


def test_policies_and_cold_starts_are_read(tmp_path: Path) -> None:
    assert parse_policies("all") == list(POLICIES)
    assert list(POLICIES) == [
        "penstock", "static", "ray-serve", "ray-serve-tuned", "kpa", "hpa", "hpa-concurrency",
        "clairvoyant",
    ]  # fmt: skip
    assert parse_seconds("15", "cold_start") == (15.0,)
    (tmp_path / "starts").write_text("0.4\n0.6\n")
    assert parse_seconds(str(tmp_path / "starts"), "cold_start") == (0.4, 0.6)
    for text in ("soon", "-1", "", "nan"):
        with pytest.raises(BadRequestError):
            parse_seconds(text, "cold_start")
    with pytest.raises(BadRequestError, match="no policy"):
        parse_policies("magic")


def test_entry_prints_json_and_names_a_broken_line(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(simulate)
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('{"timestamp": 0, "input_length": 100, "output_length": 5}\n')
    bad.write_text(good.read_text() + "oops\n")
    done = CliRunner().invoke(app, ["--trace", str(good), "--output", "json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["policies"][0]["name"] == "penstock"
    failed = CliRunner().invoke(app, ["--trace", str(bad)])
    assert failed.exit_code == 2
    assert "line 2" in failed.stderr
