"""The simulator against arithmetic that can be done by hand, then policies on plain traces."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from autoscaler.__main__ import measured_profile
from autoscaler.fleet import EngineError, EngineModel, SimulatedFleet, engine_of, parse_engine
from autoscaler.rivals import Static
from autoscaler.simulate import (
    Outcome,
    Scenario,
    least_static,
    run,
    run_penstock,
    run_static,
    work_bound_hours,
)
from autoscaler.traces import Trace, make_trace
from models.errors import BadRequestError
from models.profile_measured import write_measured
from models.profile_search import Here
from tests.models.test_profile_measured import HERE, measured

ENGINE = EngineModel(slots=4, prefill_tps=1000.0, step_ms=10.0, step_ms_per_seq=1.0)


def fleet(trace: Trace, engine: EngineModel = ENGINE, places: int = 4) -> SimulatedFleet:
    return SimulatedFleet(
        trace, engine, places=places, ttft_s=2.0, tpot_s=0.1, cold_start=lambda: 3.0
    )


def finish(sim: SimulatedFleet) -> None:
    while not sim.all_done:
        sim.advance(sim.now_s + 1.0)


def test_lone_request_takes_prefill_and_then_steps() -> None:
    sim = fleet(make_trace("one", [(0.0, 500, 11)]))
    sim.scale_to(1, warm=True)
    finish(sim)
    ttft_s, tpot_s = sim.latencies()
    assert ttft_s[0] == pytest.approx(0.5)
    assert tpot_s[0] == pytest.approx(0.011)


def test_way_outside_the_engine_delays_tokens_and_occupies_nothing() -> None:
    trace = make_trace("two", [(0.0, 500, 11), (5.0, 500, 11)])
    slow = replace(Scenario(trace, ENGINE), ways_s=(0.25,))
    assert run_static(slow, 1).ttft_s == pytest.approx((0.75, 0.75))
    assert run_static(slow, 1).tpot_p99_s == pytest.approx(0.011)
    assert run_static(replace(slow, ttft_s=0.7), 1).attainment == 0.0
    drawn = run_static(replace(slow, ways_s=(0.1, 0.2)), 1).ttft_s
    assert set(np.round(drawn, 6)) <= {0.6, 0.7}
    assert drawn == run_static(replace(slow, ways_s=(0.1, 0.2)), 1).ttft_s


def test_engines_on_the_same_cores_slow_each_other_down() -> None:
    apart = Scenario(make_trace("apart", [(0.0, 500, 11), (5.0, 500, 11)]), ENGINE, ways_s=(0.1,))
    at_once = replace(apart, trace=make_trace("at once", [(0.0, 500, 11), (0.001, 500, 11)]))
    shared = replace(ENGINE, crowding=0.5)
    assert run_static(replace(apart, engine=shared), 2) == run_static(apart, 2)
    alone = run_static(at_once, 2)
    assert alone.ttft_s == pytest.approx((0.6, 0.6))
    both = run_static(replace(at_once, engine=shared), 2)
    # The first prompt began before the other engine had work; the second's way, when it was done.
    assert both.ttft_s == pytest.approx((0.5 + 1.5 * 0.1, 1.5 * 0.5 + 0.1))
    assert both.tpot_s[0] == pytest.approx(1.5 * 0.011)


def test_further_start_beside_an_engine_and_the_stop_take_their_own_time() -> None:
    sim = SimulatedFleet(
        make_trace("one", [(0.0, 500, 11)]), ENGINE, places=2, ttft_s=2.0, tpot_s=0.1,
        cold_start=lambda: 1.0, further_start=lambda: 4.0, stop_s=0.5,
    )  # fmt: skip
    sim.scale_to(1)
    sim.scale_to(2)
    sim.advance(2.0)
    assert sim.count_ready() == 1
    sim.advance(4.5)
    assert sim.count_ready() == 2
    sim.scale_to(0)
    assert sim.engine_s() == pytest.approx(2 * (4.5 + 0.5))


def test_chunks_share_steps_with_decoding() -> None:
    # The second prompt of 4,000 tokens comes while the first decodes: chunks of 2,047 tokens.
    sim = fleet(make_trace("two", [(0.0, 100, 3), (0.105, 4000, 1)]))
    sim.scale_to(1, warm=True)
    finish(sim)
    ttft_s, tpot_s = sim.latencies()
    # One step of 11 ms alone, then one with a chunk of 2,047 tokens beside it.
    assert tpot_s[0] == pytest.approx((0.011 + 2.047 + 0.011) / 2)
    assert ttft_s[1] == pytest.approx(0.111 - 0.105 + 2.047 + 0.011 + 1.953)


def test_first_request_waits_for_the_cold_start_and_pays_for_it() -> None:
    sim = fleet(make_trace("one", [(0.0, 100, 1)]))
    sim.scale_to(1)
    finish(sim)
    assert sim.latencies()[0][0] == pytest.approx(3.1)
    assert sim.engine_s() == pytest.approx(sim.now_s)


def test_slots_bound_the_batch_and_the_rest_waits_at_the_gateway() -> None:
    sim = fleet(make_trace("six", [(0.0, 1, 1000)] * 6))
    sim.scale_to(1, warm=True)
    sim.advance(1.0)
    seen = sim.look(None, None, 4)
    assert (seen.in_flight, seen.queued, seen.oldest_wait_s) == (4, 2, 1.0)
    assert seen.queued_tokens == 2


def test_prompts_wait_at_the_gateway_beyond_what_is_sent_ahead() -> None:
    sim = fleet(
        make_trace("five", [(0.0, 600, 1)] * 5), replace(ENGINE, ahead_tokens=1000, slots=8)
    )
    sim.scale_to(1, warm=True)
    sim.advance(0.1)
    seen = sim.look(None, None, 4)
    assert (seen.queued, seen.prefill_tokens) == (3, 1200)


def test_kv_cache_delays_admission() -> None:
    trace = make_trace("two", [(0.0, 500, 101)] * 2)
    sim = fleet(trace, replace(ENGINE, kv_tokens=700))
    sim.scale_to(1, warm=True)
    finish(sim)
    ttft_s, _ = sim.latencies()
    assert sorted(ttft_s) == pytest.approx([0.5, 0.5 + 100 * 0.011 + 0.5])


def test_draining_engine_ends_its_requests_and_is_paid_until_then() -> None:
    sim = fleet(make_trace("one", [(0.0, 1000, 101)]))
    sim.scale_to(1, warm=True)
    sim.advance(0.5)
    sim.scale_to(0)
    assert sim.look(None, None, 4).draining == 1
    finish(sim)
    sim.advance(50.0)
    assert sim.engine_s() == pytest.approx(1.0 + 100 * 0.011)


def test_scale_down_takes_starting_engines_first_then_the_emptiest() -> None:
    sim = fleet(make_trace("two", [(0.0, 10, 500)] * 3))
    sim.scale_to(2, warm=True)
    sim.advance(0.5)
    sim.scale_to(3)
    sim.scale_to(2)
    seen = sim.look(None, None, 4)
    assert (seen.ready, seen.starting, seen.draining) == (2, 0, 0)
    sim.scale_to(1)
    assert sim.look(None, None, 4).in_flight == 3
    assert sim.look(None, None, 4).draining == 1


def test_every_request_is_served_once_whatever_the_scaling() -> None:
    random = np.random.default_rng(3)
    trace = make_trace(
        "noise",
        [(float(random.uniform(0, 60)), int(random.integers(1, 3000)), int(random.integers(1, 200)))
         for _ in range(400)],
    )  # fmt: skip
    sim = fleet(trace, places=6)
    while not sim.all_done:
        sim.advance(sim.now_s + 0.5)
        sim.scale_to(int(random.integers(1, 6)))
    ttft_s, tpot_s = sim.latencies()
    # Never faster than the engine is.
    assert np.all(ttft_s >= trace.prompt / 1000.0 - 1e-9)
    assert np.all(tpot_s[trace.output > 1] >= 0.011 - 1e-9)
    assert sim.look(None, None, 6).in_flight == 0


def steps(seed: int) -> Trace:
    """Ten minutes: 2 a second, for the middle third 40 a second."""
    random = np.random.default_rng(seed)
    arrivals = []
    for start_s, rate in ((0, 2), (200, 40), (400, 2)):
        at = start_s + np.sort(random.uniform(0, 200, rate * 200))
        arrivals += [(float(s), 1000, 100) for s in at]
    return make_trace("steps", arrivals)


def wave(seed: int) -> Trace:
    """Ten minutes of a sinusoid between 2 and 60 requests a second."""
    random = np.random.default_rng(seed)
    at = np.sort(random.uniform(0, 600, 60 * 600))
    kept = at[random.uniform(0, 60, len(at)) < 31 + 29 * np.sin(at / 600 * 4 * np.pi - 1.5)]
    return make_trace("wave", [(float(s), 800, 150) for s in kept])


def spikes(seed: int) -> Trace:
    """Each minute 400 requests within two seconds, and little between."""
    random = np.random.default_rng(seed)
    arrivals = [(float(s), 500, 20) for s in random.uniform(0, 1200, 600)]
    for minute in range(20):
        arrivals += [(60.0 * minute + float(s), 1500, 20) for s in random.uniform(0, 2, 400)]
    return make_trace("spikes", arrivals)


@pytest.mark.parametrize("make", [steps, wave, spikes])
def test_policy_attains_the_slo_for_less_than_a_static_fleet(make: object) -> None:
    scenario = Scenario(make(1), cold_starts_s=(0.5,), places=40)  # type: ignore[operator]
    ours, static = run_penstock(scenario), least_static(scenario)
    assert ours.attainment >= 0.99
    assert ours.gpu_hours < static.gpu_hours
    assert ours.gpu_hours > work_bound_hours(scenario)


def test_policy_sleeps_in_gaps_and_wakes_at_once() -> None:
    trace = make_trace("rare", [(600.0 * i, 1000, 50) for i in range(6)])
    outcome = run_penstock(Scenario(trace, cold_starts_s=(1.0,)))
    assert outcome.attainment == 1.0
    assert outcome.cold_hits == 5
    assert outcome.ttft_p99_s == pytest.approx(1.0 + 1 / 35, abs=0.01)
    assert outcome.gpu_hours * 3600 < 6 * 70


def test_fleet_of_no_use_is_given_up_and_counts_as_missed() -> None:
    trace = make_trace("much", [(0.0, 50_000, 2000)] * 40)
    outcome = run_static(Scenario(trace, engine=ENGINE, places=1), 1)
    assert outcome.attainment < 0.1
    assert math.isinf(outcome.ttft_p99_s)


def test_runs_are_repeatable_and_measured_starts_are_sampled() -> None:
    scenario = Scenario(steps(1), cold_starts_s=(0.4, 0.5, 5.0), places=20)
    assert run_penstock(scenario) == run_penstock(scenario)
    other = run_penstock(replace(scenario, seed=2))
    assert other.gpu_hours != run_penstock(scenario).gpu_hours


def test_static_scaler_and_static_fleet_cost_the_same() -> None:
    scenario = replace(Scenario(steps(1)), initial=12)
    scaled: Outcome = run(scenario, "static", Static(12))
    assert scaled.gpu_hours == pytest.approx(run_static(scenario, 12).gpu_hours, rel=0.01)
    assert scaled.attainment == run_static(scenario, 12).attainment


def test_engine_is_read_from_its_parameters() -> None:
    found = parse_engine("slots=64,prefill_tps=35000,step_ms=8,step_ms_per_seq=0.12")
    assert found == EngineModel(slots=64)
    assert parse_engine("") == EngineModel()


@pytest.mark.parametrize("text", ["slots=0", "slots=x", "wheels=4", "slots", "step_ms=nan"])
def test_impossible_engine_is_refused(text: str) -> None:
    with pytest.raises(EngineError):
        parse_engine(text)


def test_load_that_ripples_around_a_whole_engine_does_not_turn_the_target() -> None:
    # Poisson arrivals at a rate whose need crosses 2 again and again, with starts so cheap that a
    # peak is held for 10 s only: without a margin on the way down the target turns again and again.
    count, seconds = 12_000, 400.0
    arrival_s = np.sort(np.random.default_rng(3).uniform(0.0, seconds, count))
    prompts, outputs = np.full(count, 800), np.full(count, 200)
    trace = Trace("ripples", arrival_s, prompts, outputs)
    outcome = run_penstock(Scenario(trace=trace, cold_starts_s=(0.5,)))
    engines = [n for at_s, n in outcome.timeline if 150.0 <= at_s <= seconds]
    steps = [b - a for a, b in pairwise(engines) if a != b]
    assert sum((a > 0) != (b > 0) for a, b in pairwise(steps)) <= 1
    assert outcome.attainment > 0.99


def test_engine_is_what_a_profile_says_and_flags_change_it() -> None:
    engine = engine_of(measured())
    assert (engine.slots, engine.prefill_tps) == (64, 20000.0)
    assert (engine.step_ms, engine.step_ms_per_seq) == pytest.approx((4.8, 0.2))
    assert parse_engine("slots=7", engine) == replace(engine, slots=7)


def test_profile_of_a_name_must_be_of_here_and_a_file_may_be_of_anywhere(tmp_path: Path) -> None:
    write_measured(tmp_path, measured())
    assert measured_profile("guide", tmp_path, HERE).profile == measured()
    elsewhere = Here("0.1.0", HERE.cpu)
    aside = measured_profile("guide", tmp_path, elsewhere)
    assert (aside.profile, "vLLM 0.32.0" in aside.warnings[0]) == (None, True)
    file = str(tmp_path / "guide-cpu-throughput.yaml")
    chosen = measured_profile(file, tmp_path, elsewhere)
    assert (chosen.profile, len(chosen.warnings)) == (measured(), 1)
    with pytest.raises(BadRequestError, match="no measured profile of other"):
        measured_profile("other", tmp_path, HERE)
