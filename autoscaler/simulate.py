"""Replays a trace against a scaler on the simulated fleet, and judges what came of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from autoscaler.fleet import EngineModel, SimulatedFleet
from autoscaler.kernel import Floats
from autoscaler.rivals import Penstock, Scaler, Static
from autoscaler.snapshot import Spec
from autoscaler.traces import Trace

PLACES = 64
"""Engines that may exist at once, unless the scenario says otherwise."""
AFTERMATH_S = 900.0
"""What has not ended this long after the last arrival is given up, and a miss."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What all policies of one comparison share."""

    trace: Trace
    engine: EngineModel = field(default_factory=EngineModel)
    cold_starts_s: tuple[float, ...] = (2.0,)  # drawn from evenly; one value is a constant
    further_starts_s: tuple[float, ...] = ()  # beside an engine, where it makes a difference
    stop_s: float = 0.0  # from an engine's last work to its release
    ways_s: tuple[float, ...] = (0.0,)  # of a request outside its engine; drawn evenly
    ttft_s: float = 2.0
    tpot_s: float = 0.1
    attainment: float = 0.99
    idle_timeout_s: float = 300.0
    places: int = PLACES
    initial: int = 1  # engines that are ready when the trace begins
    seed: int = 1
    price_per_gpu_hour: float = 0.0
    gpus: int = 1  # of one engine

    def known_start_s(self) -> float:
        """What the policy is told of cold starts: the 90th percentile of those measured."""
        return float(np.quantile(self.cold_starts_s + self.further_starts_s, 0.9))

    def spec(self) -> Spec:
        """The spec under which the live policy runs."""
        return Spec(0, self.places, self.idle_timeout_s, self.ttft_s, self.tpot_s, self.attainment)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one policy made of a scenario."""

    name: str
    attainment: float  # share of all arrivals whose TTFT and TPOT both hold
    gpu_hours: float  # from allocation to release
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p99_s: float
    cold_hits: int  # requests that came while no engine was ready
    scale_events: int  # changes of the number of engines
    cost: float
    knobs: str = ""
    timeline: tuple[tuple[float, int], ...] = ()  # (s, engines), once a second
    missed_at_s: tuple[float, ...] = ()  # arrivals that missed
    ttft_s: tuple[float, ...] = ()  # of each request, in the order of arrival
    tpot_s: tuple[float, ...] = ()  # likewise


@dataclass(frozen=True, slots=True)
class Budget:
    """A run that passes one of these is of no interest any more."""

    gpu_hours: float = math.inf  # what has not come yet counted at its least, see work_ahead_s
    missed: float = math.inf  # requests


def run(scenario: Scenario, name: str, scaler: Scaler, knobs: str = "") -> Outcome:
    """Replays the trace; the scaler decides at its interval, and at once while nothing runs."""
    return _ended(run_within(Budget(), scenario, name, scaler, knobs))


def run_within(
    budget: Budget, scenario: Scenario, name: str, scaler: Scaler, knobs: str = ""
) -> Outcome | None:
    """As `run`, but None as soon as the budget is passed."""
    fleet = _new_fleet(scenario)
    fleet.scale_to(scenario.initial, warm=True)
    return _finish(scenario, name, knobs, fleet, scaler, budget)


def run_static(scenario: Scenario, engines: int) -> Outcome:
    """A constant fleet that is warm when the trace begins."""
    fleet = _new_fleet(replace(scenario, places=max(engines, 1)))
    fleet.scale_to(engines, warm=True)
    return _ended(
        _finish(scenario, "static", f"engines={engines}", fleet, Static(engines), Budget())
    )


def run_penstock(scenario: Scenario) -> Outcome:
    """The live policy with its defaults."""
    return run(scenario, "penstock", Penstock(scenario.spec()))


def least_static(scenario: Scenario) -> Outcome:
    """The smallest constant fleet, in hindsight, that attains the SLO; else the largest one."""
    low, high = 1, scenario.places
    best = run_static(scenario, high)
    if best.attainment < scenario.attainment:
        return best
    while low < high:
        middle = (low + high) // 2
        outcome = run_static(scenario, middle)
        if outcome.attainment >= scenario.attainment:
            best, high = outcome, middle
        else:
            low = middle + 1
    return best


def work_bound_hours(scenario: Scenario) -> float:
    """GPU-hours for all tokens at full rate, prefill alone and decoding with all slots full."""
    one, trace = scenario.engine.capacity(), scenario.trace
    prefill_s = float(trace.prompt.sum()) / one.prefill_tps
    decode_s = float(trace.output.sum()) * one.token_s(one.slots)
    return (prefill_s + decode_s) * scenario.gpus / 3600.0


def work_ahead_s(scenario: Scenario) -> Floats:
    """Engine seconds at the least for all requests from the n-th on, and 0 after the last."""
    one, trace = scenario.engine.capacity(), scenario.trace
    each_s = trace.prompt / one.prefill_tps + (trace.output - 1) * one.token_s(one.slots)
    return np.append(np.cumsum(each_s[::-1])[::-1], 0.0)


def _ended(outcome: Outcome | None) -> Outcome:
    if outcome is None:
        raise RuntimeError("a run without a budget was given up")
    return outcome


def _new_fleet(scenario: Scenario) -> SimulatedFleet:
    further = scenario.further_starts_s
    return SimulatedFleet(
        scenario.trace,
        scenario.engine,
        places=scenario.places,
        ttft_s=scenario.ttft_s,
        tpot_s=scenario.tpot_s,
        cold_start=_sampler(scenario.cold_starts_s, scenario.seed),
        further_start=_sampler(further, scenario.seed) if further else None,
        stop_s=scenario.stop_s,
        ways_s=scenario.ways_s,
        seed=scenario.seed,
    )


def _sampler(choices: tuple[float, ...], seed: int) -> Callable[[], float]:
    random = np.random.default_rng(seed)
    if len(choices) == 1:
        return lambda: choices[0]
    return lambda: float(random.choice(choices))


def _finish(
    scenario: Scenario,
    name: str,
    knobs: str,
    fleet: SimulatedFleet,
    scaler: Scaler,
    budget: Budget,
) -> Outcome | None:
    trace = scenario.trace
    start_s, capacity = scenario.known_start_s(), scenario.engine.capacity()
    timeline: list[tuple[float, int]] = []
    cold_hits = events = missed = came = 0
    limit_s = budget.gpu_hours * 3600.0 / scenario.gpus
    ahead_s = work_ahead_s(scenario) if math.isfinite(limit_s) else np.zeros(len(trace) + 1)
    while not fleet.all_done and fleet.now_s < trace.duration_s + AFTERMATH_S:
        before = fleet.now_s
        sleeping = fleet.kept == 0
        none_ready = fleet.count_ready() == 0
        fleet.advance(before + scaler.interval_s, stop_on_arrival=sleeping)
        seen = fleet.look(start_s, capacity, scenario.places)
        if none_ready:
            cold_hits += seen.arrivals
        missed += seen.missed
        came += seen.arrivals
        if missed > budget.missed or fleet.engine_s() + float(ahead_s[came]) > limit_s + 1e-6:
            return None
        target = min(scaler.target(seen), scenario.places)
        events += target != fleet.kept
        fleet.scale_to(target)
        if not timeline or fleet.now_s >= timeline[-1][0] + 1.0:
            timeline.append((fleet.now_s, seen.ready + seen.starting + seen.draining))
    ttft_s, tpot_s = fleet.latencies()
    met = (ttft_s <= scenario.ttft_s) & (tpot_s <= scenario.tpot_s)
    gpu_hours = fleet.engine_s() * scenario.gpus / 3600.0
    return Outcome(
        name=name,
        attainment=float(met.mean()),
        gpu_hours=gpu_hours,
        ttft_p50_s=_percentile(ttft_s, 50),
        ttft_p99_s=_percentile(ttft_s, 99),
        tpot_p99_s=_percentile(tpot_s, 99),
        cold_hits=cold_hits,
        scale_events=events,
        cost=gpu_hours * scenario.price_per_gpu_hour,
        knobs=knobs,
        timeline=tuple(timeline),
        missed_at_s=tuple(trace.arrival_s[~met].tolist()),
        ttft_s=tuple(ttft_s.tolist()),
        tpot_s=tuple(tpot_s.tolist()),
    )


def _percentile(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", share: float) -> float:
    """Requests that never ended count as infinitely late; nothing is interpolated."""
    found = float(np.percentile(values, share, method="higher"))
    return found if math.isfinite(found) else math.inf
