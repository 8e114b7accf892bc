"""Recorded demand as a trace, and what two specs make of it."""

import pytest

from autoscaler.fleet import EngineModel
from autoscaler.rehearse import USUAL_OUTPUT, recording_of, rehearse
from autoscaler.snapshot import Spec
from models.scaling_spec import ScalingSpec

ENGINE = EngineModel(slots=8, prefill_tps=2000.0, step_ms=5.0, step_ms_per_seq=2.0)


def test_recorded_seconds_become_arrivals_with_mean_lengths() -> None:
    found = recording_of("guide", [(100, 2, 80, 0, 0), (103, 1, 10, 2, 60), (9000, 1, 5, 0, 0)])
    assert found is not None
    assert found.began_at == 100.25
    assert list(found.trace.arrival_s) == pytest.approx([0.0, 0.5, 3.25, 8900.25])
    assert list(found.trace.prompt) == [40, 40, 10, 5]
    assert list(found.trace.output) == [30, 30, 30, 30]  # the last one: as of all that ended


def test_nothing_recorded_is_no_recording() -> None:
    assert recording_of("guide", []) is None
    assert recording_of("guide", [(100, 0, 0, 3, 50)]) is None
    alone = recording_of("guide", [(100, 1, 0, 0, 0)])
    assert alone is not None
    assert (alone.trace.prompt[0], alone.trace.output[0]) == (1, USUAL_OUTPUT)


def test_rehearsal_shows_what_a_minimum_buys_and_costs() -> None:
    recording = recording_of("guide", [(600 * n, 3, 150, 3, 96) for n in range(1, 7)])
    assert recording is not None

    def spec(least: int) -> Spec:
        return Spec(least, 2, idle_timeout_s=30.0, ttft_s=1.0)

    sleeps, stays = (
        rehearse(recording, "x", lambda at, n=n: spec(n), ENGINE, [3.0], 2)  # type: ignore[misc]
        for n in (0, 1)
    )
    assert (sleeps.cold_hits > 0, stays.cold_hits) == (True, 0)
    assert sleeps.attainment < 0.5 < stays.attainment == 1.0
    assert sleeps.gpu_hours < stays.gpu_hours / 4


def test_rehearsal_follows_a_schedule() -> None:
    recording = recording_of("guide", [(10_000 + 600 * n, 1, 50, 1, 32) for n in range(6)])
    assert recording is not None

    def spec_at(at: float) -> Spec:
        return Spec(1 if at < 11_800 else 0, 1, idle_timeout_s=30.0)

    outcome = rehearse(recording, "x", spec_at, ENGINE, [1.0], 1)
    assert 0 < outcome.cold_hits < 6


def test_rehearsal_follows_cron_bounds_to_the_minute_of_the_clock() -> None:
    eight = 1_795_420_800  # 2026-11-23 08:00 UTC, a Monday
    recording = recording_of("guide", [(eight + n, 1, 50, 1, 32) for n in (-10, 40)])
    assert recording is not None

    def cold_hits(*schedule: dict[str, object]) -> int:
        scaling = ScalingSpec.model_validate({"schedule": schedule})

        def spec_at(at: float) -> Spec:
            return Spec(*scaling.bounds_at(at), idle_timeout_s=5.0)

        return rehearse(recording, "x", spec_at, ENGINE, [1.0], 1).cold_hits

    assert cold_hits() == 2
    assert cold_hits({"cron": "0 8 * * mon-fri", "for_s": 60, "min": 1}) == 1
    assert cold_hits({"cron": "0 8 * * sat,sun", "for_s": 60, "min": 1}) == 2
