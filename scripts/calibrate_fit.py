"""What `bench_calibrate` measured, the engine model fitted to its drives, and the simulated slice.

Pure. The model has a part for what shares the machine's cores: a step, and the way of a request
outside its engine, take longer while another engine works (`crowding`), and a start takes longer
beside a working engine. Everything is fitted on the drives, nothing on the slice.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from calibrate_load import Request

from autoscaler.fleet import EngineModel
from autoscaler.rivals import Penstock
from autoscaler.simulate import Outcome, Scenario, run, run_static
from autoscaler.snapshot import Spec
from autoscaler.traces import Trace, make_trace

IDLE_TIMEOUT_S = 8.0
SLOTS = 8
PACE_MAX = 8.0
"""Times the learned step that a step may turn out to take; likewise the most of `crowding`."""
HALVINGS = 20


@dataclass(frozen=True)
class Drive:
    """Requests to a constant number of engines."""

    engines: int
    requests: list[Request]

    def answered(self) -> list[Request]:
        """Those that have all figures, in the order of their arrival."""
        found = [r for r in self.requests if r.first_s is not None and r.last_s is not None]
        return sorted(found, key=lambda request: request.at_s)


@dataclass(frozen=True)
class Measured:
    """What the live platform did. Of the drives come all parameters, of the slice none."""

    prompts: dict[int, int]  # tokens of each length of prompt
    starts_s: list[float]  # of a first engine
    further_starts_s: list[float]  # beside an engine that works
    stops_s: list[float]  # from the decision to the last process's end
    drives: list[Drive]
    capacity: dict[str, Any]  # as the platform learned it from one engine
    slice: list[Request]
    slice_starts_s: list[float]
    engine_s: float


def fitted(measured: Measured) -> EngineModel:
    """The engine by the drives.

    The line of a step is the one that the platform learned, times what lets the tokens' pace of one
    engine come out as it was (what else ran when it was learned weighs on it). The speed of prompts
    is by the first tokens of short and long ones. `crowding` lets the pace of two come out.
    """
    one = measured.capacity
    engine = EngineModel(
        slots=SLOTS,
        prefill_tps=prefill_tps(measured),
        step_ms=1000 * one["step_s"],
        step_ms_per_seq=1000 * one["step_per_seq_s"],
        chunk_tokens=one["chunk_tokens"],
        kv_tokens=1_000_000,
    )

    def paced(pace: float) -> EngineModel:
        return replace(
            engine, step_ms=engine.step_ms * pace, step_ms_per_seq=engine.step_ms_per_seq * pace
        )

    alone = [drive for drive in measured.drives if drive.engines == 1]
    engine = paced(_solved(lambda pace: _excess_s(alone, measured.prompts, paced(pace))))
    beside = [drive for drive in measured.drives if drive.engines > 1]
    return replace(
        engine,
        crowding=_solved(
            lambda crowding: _excess_s(beside, measured.prompts, replace(engine, crowding=crowding))
        ),
    )


def prefill_tps(measured: Measured) -> float:
    """Prompt tokens a second, by the first tokens of the shortest and the longest prompts that one
    engine was given; as the platform learned it where these tell nothing.

    The platform's own figure is the mean over all steps with a prompt, each step's constant part
    included: on a small model that makes short prompts too fast and long ones too slow.
    """
    first_s: dict[int, list[float]] = {}
    for drive in measured.drives:
        if drive.engines == 1:
            for one in drive.answered():
                first_s.setdefault(measured.prompts[one.words], []).append(one.first_s or 0.0)
    short, long = min(first_s), max(first_s)
    took_s = statistics.median(first_s[long]) - statistics.median(first_s[short])
    return (long - short) / took_s if took_s > 0 else float(measured.capacity["prefill_tps"])


def ways(measured: Measured, engine: EngineModel) -> list[float]:
    """What requests take to their first token beyond the engine's part, in ascending order.

    Of each request to an engine alone, the time beyond the simulated engine's. That differs by what
    each of the two waited just then, which a simulated request waits once more: so the values are
    drawn together around their median until the simulated p95 is the one that was measured.
    """
    alone = [drive for drive in measured.drives if drive.engines == 1]
    real = [one.first_s or 0.0 for drive in alone for one in drive.answered()]
    engine_s = [s for drive in alone for s in _static(drive, measured.prompts, engine).ttft_s]
    beyond_s = [max(0.0, s - own_s) for s, own_s in zip(real, engine_s, strict=True)]
    middle_s = statistics.median(beyond_s)

    def drawn_together(part: float) -> list[float]:
        return sorted(middle_s + part * (s - middle_s) for s in beyond_s)

    def excess_s(part: float) -> float:
        drawn = drawn_together(part)
        found = [s for d in alone for s in _static(d, measured.prompts, engine, drawn).ttft_s]
        return at(sorted(found), 0.95) - at(sorted(real), 0.95)

    return drawn_together(_solved(excess_s, 1.0))


def simulated(
    measured: Measured, engine: EngineModel, ways_s: Sequence[float]
) -> tuple[list[float], float]:
    """TTFT of each request of the slice, and its engine seconds."""
    stop_s = statistics.median(measured.stops_s)
    scenario = Scenario(
        trace=trace_of(measured.slice, measured.prompts), engine=engine,
        cold_starts_s=tuple(measured.starts_s), stop_s=stop_s,
        further_starts_s=tuple(measured.further_starts_s), ways_s=tuple(ways_s),
        idle_timeout_s=IDLE_TIMEOUT_S, places=2, initial=0,
    )  # fmt: skip
    outcome = run(scenario, "penstock", Penstock(Spec(0, 2, IDLE_TIMEOUT_S)))
    # The run ends with the last request; live, the engines idle on for their time.
    last = outcome.timeline[-1][1] if outcome.timeline else 0
    return list(outcome.ttft_s), outcome.gpu_hours * 3600.0 + last * (IDLE_TIMEOUT_S + stop_s)


def trace_of(requests: Sequence[Request], prompts: dict[int, int]) -> Trace:
    """The requests as the simulator takes them."""
    return make_trace("slice", [(r.at_s, prompts[r.words], r.output) for r in requests])


def paces(drive: Drive) -> Iterator[float]:
    """Seconds for each further token, of each request."""
    for one in drive.answered():
        if one.output > 1:
            yield ((one.last_s or 0.0) - (one.first_s or 0.0)) / (one.output - 1)


def at(ascending: Sequence[float], share: float) -> float:
    """A quantile, nothing interpolated."""
    return ascending[int(share * (len(ascending) - 1))]


def _static(
    drive: Drive,
    prompts: dict[int, int],
    engine: EngineModel,
    ways_s: Sequence[float] = (0.0,),
) -> Outcome:
    trace = trace_of(drive.answered(), prompts)
    scenario = Scenario(trace=trace, engine=engine, ways_s=tuple(ways_s))
    return run_static(scenario, drive.engines)


def _excess_s(drives: Sequence[Drive], prompts: dict[int, int], engine: EngineModel) -> float:
    """By how much the median pace of the simulated engines is slower than that of the real ones."""
    real = [pace_s for drive in drives for pace_s in paces(drive)]
    found = [pace_s for drive in drives for pace_s in _static(drive, prompts, engine).tpot_s]
    return statistics.median(found) - statistics.median(real)


def _solved(excess: Callable[[float], float], most: float = PACE_MAX) -> float:
    """Where a rising function passes zero, between 0 and `most`."""
    low, high = 0.0, most
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return (low + high) / 2
