"""Replays a model's recorded demand under a spec: what a deploy would have changed.

The demand is recorded as counts by the second, so within a second requests arrive evenly and are
alike; answers have the mean length of those that ended around them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoscaler.fleet import EngineModel
from autoscaler.policy import decide, first_memory
from autoscaler.simulate import Outcome, Scenario, run
from autoscaler.snapshot import Snapshot, Spec
from autoscaler.traces import Trace, make_trace

AROUND_S = 300
"""Answers that ended within this time of an arrival tell how long its answer is."""
USUAL_OUTPUT = 128
"""Tokens of an answer, where none ended."""

Second = tuple[int, int, int, int, int]
"""Unix second, arrivals, tokens of their prompts, requests that ended, tokens of their answers."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Demand that was recorded, as a trace, and when it began."""

    trace: Trace
    began_at: float  # Unix seconds


def recording_of(name: str, seconds: Sequence[Second]) -> Recording | None:
    """The recorded seconds as a trace; None where nothing came in."""
    rows = sorted(second for second in seconds if second[1] > 0 or second[3] > 0)
    arrivals: list[tuple[float, int, int]] = []
    for at, count, prompts, _, _ in rows:
        output = _mean_output(rows, at) if count else 0
        prompt = max(1, round(prompts / count)) if count else 0
        arrivals += [(at + (n + 0.5) / count, prompt, output) for n in range(count)]
    if not arrivals:
        return None
    return Recording(make_trace(name, arrivals), min(at for at, _, _ in arrivals))


def rehearse(
    recording: Recording,
    name: str,
    spec_at: Callable[[float], Spec],
    engine: EngineModel,
    cold_starts_s: Sequence[float],
    places: int,
) -> Outcome:
    """What the live policy makes of the recording under a spec.

    Args:
        spec_at: The spec at a moment in Unix seconds: schedules change it.
        places: Engines that hosts can take.
    """
    first = spec_at(recording.began_at)
    scenario = Scenario(
        trace=recording.trace,
        engine=engine,
        cold_starts_s=tuple(cold_starts_s) or (1.0,),
        ttft_s=first.ttft_s,
        tpot_s=first.tpot_s,
        attainment=first.attainment,
        idle_timeout_s=first.idle_timeout_s,
        places=max(1, places),
        initial=min(first.min, places),
    )
    return run(scenario, name, _Live(spec_at, recording.began_at))


class _Live:
    """The policy as the live loop calls it, with the bounds of the hour."""

    interval_s = 0.25

    def __init__(self, spec_at: Callable[[float], Spec], began_at: float) -> None:
        self._spec_at = spec_at
        self._began_at = began_at
        self._memory = first_memory(0.0, spec_at(began_at))
        self._minute = -1
        self._spec = spec_at(began_at)

    def target(self, seen: Snapshot) -> int:
        at = self._began_at + seen.at_s
        minute = math.floor(at / 60.0)  # schedules begin and end with a minute of the clock
        if minute != self._minute:
            self._minute, self._spec = minute, self._spec_at(at)
        decision, self._memory = decide(seen, self._memory, self._spec)
        return decision.target


def _mean_output(rows: Sequence[Second], at: int) -> int:
    near = [row for row in rows if abs(row[0] - at) <= AROUND_S] or rows
    ended, tokens = sum(row[3] for row in near), sum(row[4] for row in near)
    if not ended:
        ended, tokens = sum(row[3] for row in rows), sum(row[4] for row in rows)
    return max(1, round(tokens / ended)) if ended else USUAL_OUTPUT
