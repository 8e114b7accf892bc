"""The figures of the autoscaler's live bench."""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
AT = 1_800_000_000.0


@pytest.fixture(scope="module")
def scripts() -> Iterator[None]:
    """The folder of scripts is importable, as it is for a script."""
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def autoscale(scripts: None) -> ModuleType:
    import bench_autoscale

    return bench_autoscale


def decision(after_s: float, before: int, target: int) -> dict[str, object]:
    at = datetime.fromtimestamp(AT + after_s, UTC).isoformat()
    return {"at": at, "before": before, "target": target}


def start(start_id: str, engine_id: str, bound_s: float, waited_s: float | None = 0.5) -> object:
    marks = [{"phase": "demand_seen", "at_s": 0.0}, {"phase": "bound", "at_s": bound_s}]
    return {"start_id": start_id, "engine_id": engine_id, "marks": marks, "waited_s": waited_s}


def test_flaps_are_turns_of_the_target_after_the_load_has_settled(autoscale: ModuleType) -> None:
    early = [decision(1, 0, 1), decision(2, 1, 2), decision(20, 2, 1)]
    assert autoscale.flaps_of(early, AT, AT + 600) == 0
    settled = [decision(100, 1, 2), decision(200, 2, 3)]
    assert autoscale.flaps_of(settled, AT, AT + 600) == 0
    turned = [*settled, decision(300, 3, 1), decision(400, 1, 2), decision(900, 2, 1)]
    assert autoscale.flaps_of(turned, AT, AT + 600) == 2


def test_decision_is_timed_for_the_engine_that_woke_the_model(autoscale: ModuleType) -> None:
    starts = [start("r1", "e1", 0.01), start("r1", "e2", 0.4), start("r2", "e3", 0.02, None)]
    wakes = autoscale.first_engines(starts)
    assert wakes == ["e1"]
    assert autoscale.decision_ms(starts, wakes) == [10.0]


def test_a_bench_that_broke_off_still_has_its_line(
    autoscale: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    options, tally = argparse.Namespace(steady_s=5.0), autoscale.Tally()
    assert autoscale.report(options, tally, autoscale.Found(error="RuntimeError: no wake")) == 1
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["decision_ms_p50"], line["flaps"], line["wakes"]) == (None, None, 0)
    assert line["error"] == "RuntimeError: no wake"
    whole = autoscale.Found(starts=[start("r1", "e1", 0.01), start("r2", "e2", 0.03)], flaps=0)
    assert autoscale.report(options, tally, whole) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["decision_ms_p50"], line["decision_ms_max"]) == (20.0, 30.0)
    late = autoscale.Found(starts=[start("r1", "e1", 0.2)], flaps=0)
    assert autoscale.report(options, tally, late) == 1
