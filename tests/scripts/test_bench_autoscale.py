"""The figures of the autoscaler's two live benches, and once the short way through a platform."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
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


def test_slice_has_bursts_and_gaps_and_can_be_repeated(calibrate: ModuleType) -> None:
    requests = calibrate.arrivals(1, 120.0)
    assert requests == calibrate.arrivals(1, 120.0)
    by_half_minute = [sum(30 * n <= r.at_s < 30 * n + 30 for r in requests) for n in range(4)]
    assert by_half_minute[2] <= 1  # one may just have been on its way
    assert by_half_minute[1] > by_half_minute[3] > by_half_minute[0] > 0


def measured(calibrate: ModuleType, slower: float = 1.0) -> object:
    """What a live platform would measure whose every request takes 10 ms outside its engine."""
    engine = calibrate.EngineModel(slots=8, prefill_tps=2000.0, step_ms=5.0, step_ms_per_seq=2.0)
    prompts = {words: 6 * words for words in calibrate.WORDS}
    drive, asked = calibrate.drive_arrivals(1, 30.0), calibrate.arrivals(1, 90.0)
    scenario = calibrate.Scenario(
        trace=calibrate.trace_of(drive, prompts), engine=engine, ways_s=(0.01,)
    )
    driven_s = calibrate.run_static(scenario, 1).ttft_s
    ttft_s, used_s = calibrate.simulated(asked, prompts, engine, [0.5], [0.01])
    capacity = {
        "prefill_tps": 2000.0, "step_s": 0.005, "step_per_seq_s": 0.002, "chunk_tokens": 2048,
    }  # fmt: skip
    return calibrate.Measured(
        prompts=prompts,
        starts_s=[0.5],
        drive=[replace(one, first_s=s) for one, s in zip(drive, driven_s, strict=True)],
        capacity=capacity,
        slice=[replace(one, first_s=s * slower) for one, s in zip(asked, ttft_s, strict=True)],
        slice_starts_s=[0.5],
        engine_s=used_s,
    )


def test_drive_alone_fits_the_way_outside_the_engine(calibrate: ModuleType) -> None:
    found = measured(calibrate)
    assert calibrate.ways(found, calibrate.fitted(found)) == pytest.approx(
        [0.01] * len(found.drive)
    )


def test_simulated_side_agrees_with_itself(
    calibrate: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = argparse.Namespace(slice_s=90.0)
    assert calibrate.report(options, measured(calibrate)) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["ttft_p50_error"], line["engine_error"], line["lost"]) == (0.0, 0.0, 0)
    assert calibrate.report(options, measured(calibrate, slower=2.0)) == 1


def test_what_was_measured_can_be_kept(calibrate: ModuleType, tmp_path: Path) -> None:
    kept = tmp_path / "measured.json"
    kept.write_text(json.dumps(asdict(measured(calibrate))))
    assert calibrate.read(kept) == measured(calibrate)


@pytest.mark.engine
@pytest.mark.bench
def test_calibration_runs_to_its_json_line() -> None:
    command = [sys.executable, SCRIPTS / "bench_calibrate.py", "--slice-s", "25", "--drive-s", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["bench"] == "calibrate", done.stderr
    assert line["lost"] == 0
    assert line["requests"] > 10
    assert line["engine_live_s"] > 10
