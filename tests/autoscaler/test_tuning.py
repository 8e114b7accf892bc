"""Comparisons: the best knobs win, the table and the JSON say what was asked for."""

import io
import json
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from autoscaler.__main__ import parse_cold_start, parse_policies, simulate
from autoscaler.report import as_json, as_table
from autoscaler.rivals import Static
from autoscaler.simulate import Scenario, run_static
from autoscaler.traces import make_trace
from autoscaler.tuning import POLICIES, Candidate, best_of, compare
from models.errors import BadRequestError

TRACE = make_trace("even", [(i / 5, 2000, 50) for i in range(600)])
SCENARIO = Scenario(TRACE, places=8)


def candidates(*engines: int) -> list[Candidate]:
    return [Candidate(str(n), lambda n=n: Static(n)) for n in engines]  # type: ignore[misc]


def test_cheapest_knobs_that_attain_win() -> None:
    best = best_of("static", SCENARIO, candidates(7, 1, 3, 5))
    assert best.attainment >= 0.99
    assert best.knobs == "1"


def test_where_none_attains_the_highest_attainment_wins() -> None:
    crowd = Scenario(make_trace("crowd", [(0.0, 20_000, 10)] * 60), cold_starts_s=(0.1,), places=8)
    best = best_of("static", crowd, candidates(1, 4, 2))
    assert best.attainment < 0.99
    assert best.knobs == "4"


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
    assert parse_cold_start("15") == (15.0,)
    (tmp_path / "starts").write_text("0.4\n0.6\n")
    assert parse_cold_start(str(tmp_path / "starts")) == (0.4, 0.6)
    for text in ("soon", "-1", "", "nan"):
        with pytest.raises(BadRequestError):
            parse_cold_start(text)
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
