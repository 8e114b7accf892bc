"""Finds the highest rate at which an SLO holds, from runs that are noisy. Pure: runs are given.

A rate's score is the worst of its figures over their bounds: above 1 the SLO is broken. One run
says little near the edge, where queues make latencies heavy-tailed, so a rate is measured again
until a 90 % t-interval of the logarithm of its scores lies on one side of 1, or the rounds are used
up; then the mean decides. The rate doubles until it is too high and is then bisected on a
logarithmic scale; at last the edge is interpolated between the two nearest rates.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from loadtests.summary import Summary, figure

MIN_ROUNDS = 2
MAX_ROUNDS = 6
MAX_FAILED_SHARE = 0.01
MAX_DOUBLINGS = 16
WORST = 1e3
"""Score of a run in which a figure could not be measured, or requests failed."""

T_90 = {1: 6.31, 2: 2.92, 3: 2.35, 4: 2.13, 5: 2.02}
"""Student's t for a two-sided 90 % interval, by degrees of freedom."""


class SearchError(Exception):
    """The search cannot say anything about the server."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A figure and the most that it may be, as `ttft_p99=2` (seconds)."""

    name: str
    most: float


@dataclass(frozen=True, slots=True)
class Probe:
    """A rate and how it went."""

    rate_rps: float
    scores: tuple[float, ...]
    """One for each round."""
    worst: tuple[float | None, ...]
    """The mean of each objective's figure over the rounds; None where it was not measured."""

    @property
    def score(self) -> float:
        """The geometric mean of the scores."""
        return math.exp(fmean(math.log(score) for score in self.scores))

    @property
    def holds(self) -> bool:
        """Whether the SLO holds at this rate."""
        return self.score <= 1


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was found."""

    rate_rps: float
    """Where the SLO begins to break, interpolated; 0 where it does at the lowest rate tried."""
    held_rps: float
    """The highest rate that was tried and held."""
    probes: tuple[Probe, ...]
    """By rate."""


Measure = Callable[[float, int], Awaitable[Summary]]
"""Runs at a rate, with a seed."""


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """Reads `ttft_p99=2,tpot_p99=0.1`.

    Raises:
        ValueError: An unknown figure, or a bound that is not positive.
    """
    objectives: list[Objective] = []
    for pair in text.split(","):
        name, _, bound = pair.strip().partition("=")
        figure(_NOTHING, name)
        objectives.append(Objective(name, float(bound)))
        if not objectives[-1].most > 0:
            raise ValueError(f"the bound of {name} is not positive")
    return tuple(objectives)


async def find_capacity(
    measure: Measure,
    objectives: Sequence[Objective],
    *,
    start_rps: float,
    precision: float = 0.02,
    seed: int = 0,
    tell: Callable[[Probe], None] | None = None,
) -> Capacity:
    """Searches from `start_rps` until the edge is known to within the share `precision`.

    Raises:
        SearchError: A run was not valid: the client, not the server, was at its end.
    """
    probes: dict[float, Probe] = {}

    async def holds(rate_rps: float) -> bool:
        probe = await _probe(measure, objectives, rate_rps, seed + 1000 * len(probes))
        probes[rate_rps] = probe
        if tell is not None:
            tell(probe)
        return probe.holds

    low = high = start_rps
    if await holds(start_rps):
        for _ in range(MAX_DOUBLINGS):
            low, high = high, high * 2
            if not await holds(high):
                break
        else:
            raise SearchError(f"the SLO still holds at {high:g} requests/s: begin higher")
    else:
        for _ in range(MAX_DOUBLINGS):
            low, high = low / 2, low
            if await holds(low):
                break
        else:
            return _found(0.0, 0.0, probes)
    while high / low > 1 + precision:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if await holds(middle) else (low, middle)
    return _found(_edge(probes[low], probes[high]), low, probes)


def _found(rate_rps: float, held_rps: float, probes: dict[float, Probe]) -> Capacity:
    return Capacity(rate_rps, held_rps, tuple(probes[rate] for rate in sorted(probes)))


def _edge(below: Probe, above: Probe) -> float:
    """Where the score is 1 between two rates, linear in both logarithms."""
    low, high = math.log(below.score), math.log(above.score)
    share = 0.5 if high == low else -low / (high - low)
    return below.rate_rps * (above.rate_rps / below.rate_rps) ** share


async def _probe(
    measure: Measure, objectives: Sequence[Objective], rate_rps: float, seed: int
) -> Probe:
    scores: list[float] = []
    figures: list[list[float | None]] = []
    while len(scores) < MAX_ROUNDS and not _decided(scores):
        summary = await measure(rate_rps, seed + len(scores))
        late = [said for said in summary.complaints if "late" in said]
        if late:
            raise SearchError(f"at {rate_rps:g} requests/s {late[0]}")
        figures.append([figure(summary, objective.name) for objective in objectives])
        scores.append(_score(summary, figures[-1], objectives))
    means: list[float | None] = []
    for column in zip(*figures, strict=True):
        measured = [value for value in column if value is not None]
        means.append(fmean(measured) if measured else None)
    return Probe(rate_rps, tuple(scores), tuple(means))


def _score(
    summary: Summary, figures: Sequence[float | None], objectives: Sequence[Objective]
) -> float:
    if summary.failed > MAX_FAILED_SHARE * summary.requests:
        return WORST
    worst = 1 / WORST
    for value, objective in zip(figures, objectives, strict=True):
        if value is None:
            return WORST
        worst = max(worst, value / objective.most)
    return min(worst, WORST)


def _decided(scores: Sequence[float]) -> bool:
    """Whether the scores lie on one side of 1 with confidence."""
    if len(scores) < MIN_ROUNDS:
        return False
    logs = [math.log(score) for score in scores]
    margin = T_90[len(logs) - 1] * stdev(logs) / math.sqrt(len(logs))
    return abs(fmean(logs)) > margin


_NOTHING = Summary(
    duration_s=1.0, completed=0, failed=0, failures={}, prompt_tokens=0, cached_tokens=0,
    output_tokens=0, ttft=None, tpot=None, itl=None, e2e=None, lag=None, good=None,
    usage_missing=0, prompts_off=0, peak_in_flight=0, complaints=(),
)  # fmt: skip
