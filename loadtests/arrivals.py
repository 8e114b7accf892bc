"""When requests are sent: seeded arrival times along a rate that may change. Pure.

Arrivals follow a gamma renewal process with a burstiness as in vLLM's benchmark: the gaps have the
shape `burstiness`, so 1 is a Poisson process, less is burstier, more is more even. Where the rate
changes, the process runs in operational time (the integral of the rate), which keeps both the rate
and the burstiness at each moment (E. Cinlar, Introduction to Stochastic
Processes, 1975, chapter 4).
"""

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

DAY = (0.35, 0.25, 0.2, 0.15, 0.15, 0.2, 0.3, 0.5, 0.75, 0.95, 1.0, 1.0,
       0.9, 0.95, 1.0, 1.0, 0.95, 0.85, 0.7, 0.65, 0.65, 0.6, 0.5, 0.4)  # fmt: skip
"""Share of the peak rate at each full hour of a working day: a night, two humps, an evening."""


@dataclass(frozen=True, slots=True)
class RateCurve:
    """A rate in requests a second over time, linear between `points` of (second, rate).

    Two points at the same second are a jump. The first second is 0; the curve ends with the last.

    Raises:
        ValueError: No span of time, times out of order, or a negative rate.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        times = [at_s for at_s, _rate in self.points]
        if len(times) < 2 or times[0] != 0 or times[-1] <= 0:
            raise ValueError("a rate curve begins at 0 s and takes more than no time")
        if times != sorted(times):
            raise ValueError("the points of a rate curve are in order of time")
        rates = [rate for _at_s, rate in self.points]
        if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
            raise ValueError("a rate is finite and not negative")

    @property
    def duration_s(self) -> float:
        """Where the curve ends."""
        return self.points[-1][0]

    def masses(self) -> list[float]:
        """Expected arrivals from the beginning to each point."""
        masses = [0.0]
        for (start_s, rate), (end_s, next_rate) in pairwise(self.points):
            masses.append(masses[-1] + (end_s - start_s) * (rate + next_rate) / 2)
        return masses

    @property
    def expected(self) -> float:
        """Expected arrivals over the whole curve."""
        return self.masses()[-1]


def constant(rate_rps: float, duration_s: float) -> RateCurve:
    """The same rate all the time."""
    return RateCurve(((0.0, rate_rps), (duration_s, rate_rps)))


def ramp(from_rps: float, to_rps: float, duration_s: float) -> RateCurve:
    """A rate that grows or falls evenly."""
    return RateCurve(((0.0, from_rps), (duration_s, to_rps)))


def steps(rates_rps: Sequence[float], duration_s: float) -> RateCurve:
    """Equally long steps of constant rates."""
    width_s = duration_s / len(rates_rps)
    points: list[tuple[float, float]] = []
    for index, rate in enumerate(rates_rps):
        points += [(index * width_s, rate), ((index + 1) * width_s, rate)]
    return RateCurve(tuple(points))


def spike(base_rps: float, peak_rps: float, duration_s: float) -> RateCurve:
    """A constant rate that jumps to its peak for the fifth tenth of the time."""
    start_s, end_s = duration_s * 0.4, duration_s * 0.5
    return RateCurve(
        (
            (0.0, base_rps), (start_s, base_rps), (start_s, peak_rps), (end_s, peak_rps),
            (end_s, base_rps), (duration_s, base_rps),
        )
    )  # fmt: skip


def day(peak_rps: float, duration_s: float = 600.0) -> RateCurve:
    """A working day from midnight to midnight, in ten minutes or another time."""
    hours = [*DAY, DAY[0]]
    width_s = duration_s / len(DAY)
    return RateCurve(
        tuple((index * width_s, peak_rps * share) for index, share in enumerate(hours))
    )


def open_loop(curve: RateCurve, *, burstiness: float = 1.0, seed: int = 0) -> Iterator[float]:
    """Arrival times in seconds since the start, in order, up to the end of the curve.

    Raises:
        ValueError: A burstiness that is not positive.
    """
    if not burstiness > 0:
        raise ValueError("burstiness is positive")
    rng = random.Random(seed)  # noqa: S311, a test load
    masses = curve.masses()
    mass = 0.0
    while True:
        # Unit-rate gaps: mean 1, shape `burstiness`.
        mass += 1.0 if math.isinf(burstiness) else rng.gammavariate(burstiness, 1 / burstiness)
        if mass >= masses[-1]:
            return
        yield _when(curve, masses, mass)


def _when(curve: RateCurve, masses: Sequence[float], mass: float) -> float:
    """The time by which `mass` arrivals are expected: the inverse of the rate's integral."""
    segment = bisect_right(masses, mass) - 1
    (start_s, rate), (end_s, next_rate) = curve.points[segment], curve.points[segment + 1]
    left = mass - masses[segment]
    slope = (next_rate - rate) / (end_s - start_s)
    if abs(slope) * (end_s - start_s) < 1e-9 * (rate + next_rate):
        return start_s + left / rate
    # Solves rate * t + slope * t^2 / 2 = left in the form that is stable for small slopes.
    root = math.sqrt(max(0.0, rate * rate + 2 * slope * left))
    return start_s + 2 * left / (rate + root)
