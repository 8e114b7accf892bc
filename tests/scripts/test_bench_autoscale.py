"""The figures of the autoscaler's two live benches, and once the short way through a platform."""

import argparse
import json
import subprocess
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


@pytest.fixture(scope="module")
def calibrate(scripts: None) -> ModuleType:
    import bench_calibrate

    return bench_calibrate


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


def test_slice_has_bursts_and_gaps_and_can_be_repeated(calibrate: ModuleType) -> None:
    requests = calibrate.arrivals(1, 120.0)
    assert requests == calibrate.arrivals(1, 120.0)
    by_half_minute = [sum(30 * n <= r.at_s < 30 * n + 30 for r in requests) for n in range(4)]
    assert by_half_minute[2] <= 1  # one may just have been on its way
    assert by_half_minute[1] > by_half_minute[3] > by_half_minute[0] > 0


def test_simulated_side_agrees_with_itself(
    calibrate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = calibrate.arrivals(1, 90.0)
    prompts = {words: 6 * words for words in calibrate.WORDS}
    engine = calibrate.EngineModel(slots=8, prefill_tps=2000.0, step_ms=5.0, step_ms_per_seq=2.0)
    ttft_s, used_s = calibrate.simulated(requests, prompts, engine, [0.5])
    capacity = {
        "prefill_tps": 2000.0, "step_s": 0.005, "step_per_seq_s": 0.002, "chunk_tokens": 2048,
        "starts_s": [0.5],
    }  # fmt: skip
    lone = [(words, prompts[words] / 2000.0 + 0.01) for words in calibrate.WORDS for _ in range(3)]
    options = argparse.Namespace(slice_s=90.0)
    live_s = [s + 0.01 for s in ttft_s]
    assert calibrate.report(options, requests, prompts, lone, live_s, used_s, capacity) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["ttft_p50_error"], line["engine_error"], line["lost"]) == (0.0, 0.0, 0)
    slower = [2 * s for s in live_s]
    assert calibrate.report(options, requests, prompts, lone, slower, used_s, capacity) == 1


@pytest.mark.engine
@pytest.mark.bench
def test_calibration_runs_to_its_json_line() -> None:
    command = [sys.executable, SCRIPTS / "bench_calibrate.py", "--slice-s", "25", "--drive-s", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["bench"] == "calibrate", done.stderr
    assert line["lost"] == 0
    assert line["requests"] > 10
    assert line["engine_live_s"] > 10
