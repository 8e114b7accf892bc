"""Finds the highest rate at which an SLO holds, from runs that are noisy. Pure: runs are given.

An objective as `ttft_p99=2` says that at most 1 % of all requests, failed ones included, may take
longer than 2 s. A rate's score is the share that did over the share that may, for the worst of its
objectives: above 1 the SLO is broken. (Not the measured p99 over its bound: near the edge requests
suffer in crowds, and the p99 of a short run is then too low more often than too high.) One run says
little there, so a rate is measured again until a 90 % t-interval of its scores lies on one side of
1, or the rounds are used up; then the mean decides. The rate doubles until it is too high and is
then bisected on a logarithmic scale. At last two rates on both sides of the edge are measured for
all rounds, whatever they show, and all rounds near the edge are fitted together, by a
power of the rate (Poisson regression with a logarithmic link, which the skew of the scores does not
pull to one side as a line through their logarithms would be; P. McCullagh and J. A. Nelder,
Generalized Linear Models, 1989, section 6.2), and the edge is where the fit is 1.
"""

import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from loadtests.measure import Outcome
from loadtests.summary import Slo, figure, summarize

MIN_ROUNDS = 4
MIN_ROUNDS_FAR = 2
FAR = 8.0
"""A mean score this many times above or below 1 needs fewer rounds."""
MAX_ROUNDS = 8
MAX_INVALID = 3
"""Runs at a rate that may be thrown away because the client was late: machines have hiccups."""
MAX_DOUBLINGS = 16
NEAR = 1.2
"""Rates within this factor of the edge are fitted together."""
BESIDE = 1.05
"""The last two rates lie this factor below and above the edge as it is known by then."""
FIT_STEPS = 30
FILLING = 0.2
"""The first share of a run does not count: the queue is filling from nothing."""

T_90 = {1: 6.31, 2: 2.92, 3: 2.35, 4: 2.13, 5: 2.02, 6: 1.94, 7: 1.89}
"""Student's t for a two-sided 90 % interval, by degrees of freedom."""


class SearchError(Exception):
    """The search cannot say anything about the server."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A time that most requests must keep, as `ttft_p99=2` (seconds)."""

    kind: str
    """ttft, tpot or e2e."""
    percent: float
    most_s: float

    def kept(self, outcome: Outcome) -> bool:
        """Whether a request kept it."""
        return Slo(**{f"{self.kind}_s": self.most_s}).holds(outcome)


@dataclass(frozen=True, slots=True)
class Probe:
    """A rate and how it went."""

    rate_rps: float
    scores: tuple[float, ...]
    """One for each round."""
    figures_s: tuple[float | None, ...]
    """Each objective's percentile as measured, the mean over the rounds; None where nothing was."""

    @property
    def score(self) -> float:
        """The mean of the scores."""
        return fmean(self.scores)

    @property
    def holds(self) -> bool:
        """Whether the SLO holds at this rate."""
        return self.score <= 1


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was found."""

    rate_rps: float
    """Where the SLO begins to break, fitted; 0 where it does at the lowest rate tried."""
    held_rps: float
    """The highest rate not above it that was tried and held."""
    probes: tuple[Probe, ...]
    """By rate."""


Measure = Callable[[float, int], Awaitable[Sequence[Outcome]]]
"""Runs at a rate, with a seed."""


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """Reads `ttft_p99=2,tpot_p99=0.1`.

    Raises:
        ValueError: An unknown figure, or a bound that is not positive.
    """
    objectives: list[Objective] = []
    for pair in text.split(","):
        matched = re.fullmatch(r"\s*(ttft|tpot|e2e)_p(50|90|95|99)\s*=\s*([\d.eE+-]+)\s*", pair)
        if matched is None or not float(matched[3]) > 0:
            raise ValueError(f"an objective is as ttft_p99=2, not {pair!r}")
        objectives.append(Objective(matched[1], float(matched[2]), float(matched[3])))
    return tuple(objectives)


async def find_capacity(
    measure: Measure,
    objectives: Sequence[Objective],
    *,
    start_rps: float,
    least_rps: float = 0.0,
    precision: float = 0.02,
    seed: int = 0,
    tell: Callable[[Probe], None] | None = None,
) -> Capacity:
    """Searches from `start_rps` until the edge is known to within the share `precision`; not
    below `least_rps`, where too few requests would come in a run to say anything.

    Raises:
        SearchError: A run was not valid: the client, not the server, was at its end.
    """
    probes: dict[float, Probe] = {}

    async def holds(rate_rps: float, rounds: int = MIN_ROUNDS_FAR) -> bool:
        probe = await _probe(measure, objectives, rate_rps, seed + 1000 * len(probes), rounds)
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
            if low < least_rps:
                return _found(0.0, probes)
            if await holds(low):
                break
        else:
            return _found(0.0, probes)
    while high / low > 1 + precision:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if await holds(middle) else (low, middle)
    edge = _edge(_between(probes[low], probes[high]), probes)
    for rate_rps in (edge / BESIDE, edge * BESIDE):
        await holds(rate_rps, MAX_ROUNDS)
    return _found(_edge(edge, probes), probes)


def _found(rate_rps: float, probes: Mapping[float, Probe]) -> Capacity:
    held = [rate for rate, probe in probes.items() if probe.holds and rate <= rate_rps]
    return Capacity(
        rate_rps, max(held, default=0.0), tuple(probes[rate] for rate in sorted(probes))
    )


def _edge(about_rps: float, probes: Mapping[float, Probe]) -> float:
    """The edge by all rates that are near it."""
    near = [p for rate, p in probes.items() if 1 / NEAR < rate / about_rps < NEAR]
    return _fitted(near, about_rps) or about_rps


def _between(below: Probe, above: Probe) -> float:
    """Where the score is 1 between two rates, linear in both logarithms."""
    low, high = math.log(below.score), math.log(above.score)
    share = 0.5 if high == low else -low / (high - low)
    return below.rate_rps * (above.rate_rps / below.rate_rps) ** share


def _fitted(probes: Sequence[Probe], about_rps: float) -> float | None:
    """Where the power of the rate that fits the scores best is 1, each round counting alike; None
    where no power that rises with the rate fits. Newton's method from a steep one."""
    logs = [math.log(probe.rate_rps / about_rps) for probe in probes]
    rounds = [len(probe.scores) for probe in probes]
    scores = [probe.score for probe in probes]
    level, power = 0.0, 10.0
    for _ in range(FIT_STEPS):
        weights = [
            n * math.exp(min(50.0, level + power * x)) for n, x in zip(rounds, logs, strict=True)
        ]
        misses = [n * y - w for n, y, w in zip(rounds, scores, weights, strict=True)]
        first, second = sum(misses), sum(m * x for m, x in zip(misses, logs, strict=True))
        a = sum(weights)
        b = sum(w * x for w, x in zip(weights, logs, strict=True))
        c = sum(w * x * x for w, x in zip(weights, logs, strict=True))
        determinant = a * c - b * b
        if determinant <= 1e-12:
            return None
        level += (c * first - b * second) / determinant
        power += (a * second - b * first) / determinant
    if power <= 0 or not abs(level / power) < math.log(NEAR):
        return None
    return about_rps * math.exp(-level / power)


async def _probe(
    measure: Measure,
    objectives: Sequence[Objective],
    rate_rps: float,
    seed: int,
    rounds: int,
) -> Probe:
    scores: list[float] = []
    figures: list[list[float | None]] = []
    invalid = 0
    while len(scores) < MAX_ROUNDS and not (len(scores) >= rounds and _decided(scores)):
        outcomes = await measure(rate_rps, seed + len(scores))
        counted = outcomes[int(len(outcomes) * FILLING) :]
        summary = summarize(counted, 1.0)
        late = [said for said in summary.complaints if "late" in said]
        if late:
            invalid += 1
            if invalid > MAX_INVALID:
                raise SearchError(f"at {rate_rps:g} requests/s {late[0]}")
            continue
        scores.append(max(_score(counted, objective) for objective in objectives))
        figures.append([figure(summary, f"{o.kind}_p{o.percent:g}") for o in objectives])
    means: list[float | None] = []
    for column in zip(*figures, strict=True):
        measured = [value for value in column if value is not None]
        means.append(fmean(measured) if measured else None)
    return Probe(rate_rps, tuple(scores), tuple(means))


def _score(outcomes: Sequence[Outcome], objective: Objective) -> float:
    """The share of requests that broke the objective over the share that may; half a request more
    in both counts, so that none at all is not infinitely far from the edge."""
    broken = sum(not objective.kept(outcome) for outcome in outcomes)
    allowed = len(outcomes) * (100 - objective.percent) / 100
    return (broken + 0.5) / (allowed + 0.5)


def _decided(scores: Sequence[float]) -> bool:
    """Whether the mean of the scores lies on one side of 1 with confidence."""
    if len(scores) < MIN_ROUNDS_FAR:
        return False
    far = not 1 / FAR < fmean(scores) < FAR
    if len(scores) < MIN_ROUNDS and not far:
        return False
    margin = T_90[len(scores) - 1] * stdev(scores) / math.sqrt(len(scores))
    return abs(fmean(scores) - 1) > margin
