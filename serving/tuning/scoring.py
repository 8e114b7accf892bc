"""What figures are worth under an SLO and a goal. Pure."""

import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from models.errors import BadRequestError
from models.manifest import Goal
from models.profile_measured import Paired
from serving.tuning.trials import Figures, Reading, Settings

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, order=True)
class Score:
    """Worth of a trial; those that keep the SLO come before those that do not."""

    keeps_slo: bool
    value: float
    """Tokens/s, 1 over seconds, or the geometric mean of both; less, where the SLO breaks."""


NONE = Score(False, 0.0)
"""A trial without figures."""


def parse_slo(text: str) -> dict[str, float]:
    """Reads `ttft_p99=2,tpot_p99=0.1`, in seconds.

    Raises:
        BadRequestError: An unknown figure, or a bound that is not positive.
    """
    slo: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        matched = re.fullmatch(r"((?:ttft|tpot)_p(?:50|99))\s*=\s*(\d*\.?\d+(?:[eE]-?\d+)?)", part)
        if matched is None or not float(matched[2]) > 0:
            raise BadRequestError(
                f"an objective is as ttft_p99=2, not {part!r}",
                param="slo",
                hint="ttft_p50, ttft_p99, tpot_p50 and tpot_p99, in seconds",
            )
        slo[matched[1]] = float(matched[2])
    return slo


def score(figures: Figures | None, goal: Goal, slo: Mapping[str, float]) -> Score:
    """What a trial is worth.

    `throughput`: the highest tokens/s of a level that keeps the SLO. `latency`: the pace of one
    sequence at the lowest level. `balanced`: both alike. Where no level keeps the SLO, the value of
    the one that is nearest to it, divided by how far it is off.
    """
    if figures is None or figures.fault() is not None:
        return NONE
    best = max((_of_level(level, slo) for level in figures.levels), default=NONE)
    lowest = min(figures.levels, key=lambda level: level.concurrency)
    pace = Score(_excess(lowest, slo) <= 1, 1 / (lowest.tpot_p50 or math.inf))
    match goal:
        case "throughput":
            return best
        case "latency":
            return Score(pace.keeps_slo, pace.value / max(1.0, _excess(lowest, slo)))
        case "balanced":
            return Score(
                best.keeps_slo and pace.keeps_slo,
                math.sqrt(best.value * pace.value) / max(1.0, _excess(lowest, slo)),
            )


def _of_level(level: Reading, slo: Mapping[str, float]) -> Score:
    excess = _excess(level, slo)
    return Score(excess <= 1, (level.output_rate or 0.0) / max(1.0, excess))


def _excess(level: Reading, slo: Mapping[str, float]) -> float:
    """The worst measured figure over its bound; at most 1: all are kept."""
    measured = ((getattr(level, name), most_s) for name, most_s in slo.items())
    return max((math.inf if s is None else s / most_s for s, most_s in measured), default=0.0)


def pareto(levels: Iterable[tuple[Reading, Settings]]) -> list[tuple[Reading, Settings]]:
    """Levels of which no other has more tokens/s at as short a TPOT; fastest pace first.

    Each comes with the arguments that it took.
    """
    front: list[tuple[Reading, Settings]] = []
    best = 0.0
    whole = [(one, how) for one, how in levels if one.output_rate and one.tpot_p50]
    for level, how in sorted(
        whole, key=lambda found: (found[0].tpot_p50 or 0.0, -(found[0].output_rate or 0.0))
    ):
        rate = level.output_rate or 0.0
        if rate > best:
            best = rate
            front.append((level, how))
    return front


def paired(values: Sequence[tuple[float, float]]) -> Paired | None:
    """First over second: the geometric mean over the pairs, and the bootstrap's percentile
    interval of it (as in `loadtests.compare`); None of fewer than two pairs."""
    logs = [math.log(a / b) for a, b in values if a > 0 and b > 0]
    if len(logs) < 2:
        return None
    source = random.Random(0)  # noqa: S311, not for secrets
    drawn = sorted(fmean(source.choices(logs, k=len(logs))) for _ in range(RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    low, high = drawn[int(tail * RESAMPLES)], drawn[int((1 - tail) * RESAMPLES) - 1]
    return Paired(
        pairs=len(logs), ratio=math.exp(fmean(logs)), low=math.exp(low), high=math.exp(high)
    )
