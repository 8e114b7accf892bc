"""`penstock cost --replay`: each recommendation is played against the recorded demand."""

import json
from datetime import UTC, datetime

import pytest

from serving.costs import CostReport, Recommendation, Trial
from serving.protocol import ModelState
from serving.scaling import CapacityView, DemandView
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform
from tests.serving.cli.test_rehearsal import CAPACITY

THEN = datetime(2026, 1, 1, tzinfo=UTC)


def advice(kind: str, model: str | None = "guide", **trial: object) -> Recommendation:
    given = {"engine_hour": "4", "engine_hour_then": "4", **trial}
    return Recommendation(
        kind=kind, model=model, saves_per_day="1", arithmetic=f"why {kind}",
        trial=None if model is None else Trial.model_validate(given),
    )  # fmt: skip


@pytest.fixture
def priced(platform: FakePlatform) -> FakePlatform:
    platform.deploy("guide", ModelState.READY, minimum=1)
    platform.capacity = CAPACITY
    # Two bursts, with a pause between that an engine may sleep through.
    seconds = [(1000 + n, 2, 100, 2, 60) for n in (*range(10), *range(60, 70))]
    platform.demand = DemandView(seconds=seconds)
    platform.costs = CostReport(
        since=THEN, until=THEN, models=[], free_hours="0", free_cost="0", revenue="0",
        gpu_cost="0", idle_share=None, unpriced=[],
        recommendations=[
            advice("lower_min", min=0),
            advice("accelerator", engine_hour_then="40", prefill_factor=2.0, step_factor=0.5),
            advice("spot", engine_hour_then="3", reclaimed=0.5),
            advice("free_hosts", None),
            advice("lower_min", "gone", min=0),
        ],
    )  # fmt: skip
    return platform


def test_replay_says_what_each_recommendation_would_have_changed(
    run: Run, priced: FakePlatform
) -> None:
    done = run("cost", "--replay")
    assert done.code == 0, done.err
    lower, other, spot, gone = [
        line for line in " ".join(done.out.split()).split("why ") if "replayed: " in line
    ]
    assert "40 requests of the last 6 h: " in lower
    assert "x $4.00/h" in lower
    assert "cold hits 0 -> " in lower
    assert "it saves nothing" in other, "ten times as dear"
    assert "1 of 2 hosts would meet" in spot
    assert "it saves, and keeps the SLO" in spot
    assert "no: " in gone


def test_costs_are_shown_without_a_replay_where_nobody_asks_for_one(
    run: Run, priced: FakePlatform
) -> None:
    done = run("cost")
    assert done.code == 0, done.err
    assert "why spot" in done.out
    assert "replayed" not in done.out


def test_replay_says_what_it_lacks(run: Run, priced: FakePlatform) -> None:
    priced.capacity = CapacityView(source="unknown")
    assert "what an engine can do is not known yet" in " ".join(run("cost", "--replay").out.split())
    priced.demand = DemandView(seconds=[])
    told = json.loads(run("cost", "--replay", "-o", "json").out)["recommendations"]
    assert [("replayed" in one) for one in told] == [True, True, True, False, True]
    assert "nobody asked" in " ".join(run("cost", "--replay").out.split())
