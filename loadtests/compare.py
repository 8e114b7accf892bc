"""Compares two servers from pairs of runs: ratios and differences with confidence intervals. Pure.

Pairs, because a machine drifts: the two runs of a pair are neighbours in time, and what slows both
cancels out. A ratio is the geometric mean over the pairs; the interval is the bootstrap's
percentile interval over pairs (B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13).
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from loadtests.summary import Summary, figure, percentile

MIN_PAIRS = 10
"""With fewer pairs an interval says little; a comparison says so."""

RESAMPLES = 2000
CONFIDENCE = 95.0

COMPARED = (
    "output_rate", "request_rate", "ttft_mean", "ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99",
    "itl_p50", "itl_p99", "e2e_p50", "e2e_p99",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % confidence interval."""

    estimate: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether the value lies within."""
        return self.low <= value <= self.high


def bootstrap(
    values: Sequence[float], statistic: Callable[[Sequence[float]], float], *, seed: int = 0
) -> Interval:
    """The statistic of the values, and how it varies when they are drawn anew.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("nothing to estimate from")
    rng = random.Random(seed)  # noqa: S311
    drawn = sorted(statistic(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (100 - CONFIDENCE) / 2
    return Interval(statistic(values), percentile(drawn, tail), percentile(drawn, 100 - tail))


def ratio(pairs: Sequence[tuple[float, float]]) -> Interval:
    """First over second: the geometric mean of the pairs' ratios. All values are positive."""
    logs = [math.log(a / b) for a, b in pairs]
    interval = bootstrap(logs, fmean)
    return Interval(math.exp(interval.estimate), math.exp(interval.low), math.exp(interval.high))


def added(pairs: Sequence[tuple[float, float]]) -> Interval:
    """First minus second: the median of the pairs' differences."""
    return bootstrap([a - b for a, b in pairs], median)


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of two servers, A and B."""

    name: str
    a: float
    b: float
    """Medians over the runs."""
    ratio: Interval
    """A over B."""
    added: Interval
    """A minus B, in the figure's own unit."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two servers, compared in pairs of runs."""

    pairs: int
    figures: tuple[Compared, ...]
    """Figures that could be measured in every run."""
    complaints: tuple[str, ...]


def compare(pairs: Sequence[tuple[Summary, Summary]]) -> Comparison:
    """Compares A, the first of each pair, with B."""
    compared: list[Compared] = []
    for name in COMPARED:
        values = [(figure(a, name), figure(b, name)) for a, b in pairs]
        measured = [(a, b) for a, b in values if a is not None and b is not None and a * b > 0]
        if not measured or len(measured) < len(values):
            continue
        compared.append(
            Compared(
                name,
                a=median(a for a, _b in measured),
                b=median(b for _a, b in measured),
                ratio=ratio(measured),
                added=added(measured),
            )
        )
    complaints = sorted({said for pair in pairs for run in pair for said in run.complaints})
    if len(pairs) < MIN_PAIRS:
        complaints.append(f"{len(pairs)} pairs are few: at least {MIN_PAIRS} make an interval")
    failed = sum(run.failed for pair in pairs for run in pair)
    if failed:
        complaints.append(f"{failed} requests failed: the figures are of the others")
    return Comparison(len(pairs), tuple(compared), tuple(complaints))
