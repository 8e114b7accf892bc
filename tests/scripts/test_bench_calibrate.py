"""The calibration's arrivals, fit and report, and once the short way through a platform."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
PROMPTS = {4: 24, 16: 96, 48: 288}
WAY_S, STOP_S = 0.01, 0.5


@pytest.fixture(scope="module")
def calibrate() -> Iterator[ModuleType]:
    """The folder of scripts is importable, as it is for a script."""
    sys.path.insert(0, str(SCRIPTS))
    import bench_calibrate

    yield bench_calibrate
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def fit(calibrate: ModuleType) -> ModuleType:
    import calibrate_fit

    return calibrate_fit


def drive(fit: ModuleType, engine: object, engines: int, rate: float) -> object:
    """What so many of these engines would make of a drive."""
    import calibrate_load

    asked = calibrate_load.drive_arrivals(f"{engines}", 60.0, (rate,))
    scenario = fit.Scenario(trace=fit.trace_of(asked, PROMPTS), engine=engine, ways_s=(WAY_S,))
    found = fit.run_static(scenario, engines)
    took = zip(asked, found.ttft_s, found.tpot_s, strict=True)
    return fit.Drive(
        engines,
        [replace(one, first_s=s, last_s=s + pace_s * (one.output - 1)) for one, s, pace_s in took],
    )


@pytest.fixture(scope="module")
def measured(calibrate: ModuleType, fit: ModuleType) -> object:
    """What a live platform would measure whose every request takes 10 ms outside its engine, and
    whose learned steps are a third too long."""
    engine = fit.EngineModel(
        slots=8, prefill_tps=2000.0, step_ms=6.0, step_ms_per_seq=1.5, crowding=0.5
    )
    found = fit.Measured(
        prompts=PROMPTS,
        starts_s=[0.5],
        further_starts_s=[0.9],
        stops_s=[STOP_S],
        drives=[drive(fit, engine, 1, 1.0), drive(fit, engine, 2, 6.0)],
        capacity={
            "prefill_tps": 1500.0, "step_s": 0.008, "step_per_seq_s": 0.002, "chunk_tokens": 2048,
        },
        slice=calibrate.arrivals(1, 90.0),
        slice_starts_s=[0.5],
        engine_s=0.0,
    )  # fmt: skip
    ttft_s, used_s = fit.simulated(found, engine, [WAY_S])
    answered = [replace(one, first_s=s) for one, s in zip(found.slice, ttft_s, strict=True)]
    return replace(found, slice=answered, engine_s=used_s)


def test_slice_has_bursts_and_gaps_and_can_be_repeated(calibrate: ModuleType) -> None:
    requests = calibrate.arrivals(1, 120.0)
    assert requests == calibrate.arrivals(1, 120.0)
    by_half_minute = [sum(30 * n <= r.at_s < 30 * n + 30 for r in requests) for n in range(4)]
    assert by_half_minute[2] <= 1  # one may just have been on its way
    assert by_half_minute[1] > by_half_minute[3] > by_half_minute[0] > 0


def test_drives_are_no_part_of_the_slice(calibrate: ModuleType) -> None:
    drives = [calibrate.drive_arrivals(f"1 1 {when}", 60.0, (5.0,)) for when in ("before", "after")]
    times = [{one.at_s for one in part} for part in (*drives, calibrate.arrivals(1, 60.0))]
    assert not times[0] & times[1]
    assert not (times[0] | times[1]) & times[2]


def test_drives_alone_fit_the_engine(fit: ModuleType, measured: object) -> None:
    engine = fit.fitted(measured)
    assert engine.prefill_tps == pytest.approx(2000.0, rel=0.1)
    assert engine.step_ms == pytest.approx(6.0, rel=0.05)
    assert engine.step_ms_per_seq == pytest.approx(1.5, rel=0.05)
    assert engine.crowding == pytest.approx(0.5, rel=0.2)
    ways_s = fit.ways(measured, engine)
    assert ways_s[len(ways_s) // 2] == pytest.approx(WAY_S, rel=0.3)


def test_prompts_that_tell_nothing_leave_the_learned_speed(
    fit: ModuleType, measured: object
) -> None:
    drives = [
        fit.Drive(one.engines, [replace(r, first_s=0.1, last_s=0.2) for r in one.requests])
        for one in measured.drives  # type: ignore[attr-defined]
    ]
    assert fit.prefill_tps(replace(measured, drives=drives)) == 1500.0  # type: ignore[type-var]


def test_unanswered_requests_are_no_part_of_the_fit(fit: ModuleType) -> None:
    asked = [
        fit.Request(1.0, 4, 16, 0.1, 0.2),
        fit.Request(0.0, 4, 16),
        fit.Request(0.5, 4, 1, 0.1, 0.1),
    ]
    one = fit.Drive(1, asked)
    assert [r.at_s for r in one.answered()] == [0.5, 1.0]
    assert list(fit.paces(one)) == pytest.approx([0.1 / 15])


def test_simulated_side_agrees_with_itself(
    calibrate: ModuleType, measured: object, capsys: pytest.CaptureFixture[str]
) -> None:
    from calibrate_report import report

    assert report(measured, 90.0) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert abs(line["ttft_p50_error"]) < 0.1
    assert abs(line["engine_error"]) < 0.05
    assert line["lost"] == 0
    slower = [
        replace(one, first_s=2 * one.first_s)
        for one in measured.slice  # type: ignore[attr-defined]
    ]
    assert report(replace(measured, slice=slower), 90.0) == 1  # type: ignore[type-var]


def test_what_was_measured_can_be_kept(
    calibrate: ModuleType, measured: object, tmp_path: Path
) -> None:
    kept = tmp_path / "measured.json"
    kept.write_text(json.dumps(asdict(measured)))  # type: ignore[call-overload]
    assert calibrate.read(kept) == measured


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
