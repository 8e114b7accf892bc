"""How fast an endpoint answers, beside the others of its revision. Pure.

An endpoint is an outlier where its mean time to the first byte, or between tokens, is OUTLIER times
the median of the others', and some more: a small difference is no illness. It is then ejected, and
probed back; but never more than a third of a model's endpoints, and never the last one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

OUTLIER = 3.0
TTFT_SLACK_S = 0.25
TPOT_SLACK_S = 0.05

ENOUGH = 8
"""Answers before an endpoint is judged, or the others' are a measure."""

NEWEST = 0.2
"""Weight of the newest answer in the mean."""


@dataclass(slots=True)
class Pace:
    """Means that forget, of one endpoint's answers."""

    answers: int = 0
    ttft_s: float = 0.0  # since it was sent
    tpot_s: float = 0.0  # of each token after the first

    def note(self, ttft_s: float, tpot_s: float) -> None:
        """Takes one answer in."""
        newest = NEWEST if self.answers else 1.0
        self.answers += 1
        self.ttft_s += newest * (ttft_s - self.ttft_s)
        self.tpot_s += newest * (tpot_s - self.tpot_s)


def outlier(paces: Mapping[str, Pace]) -> str | None:
    """The endpoint that is far slower than the others, the worst if there are several.

    Args:
        paces: Of the endpoints that take requests; those judged unfit before are left out.
    """
    known = {name: pace for name, pace in paces.items() if pace.answers >= ENOUGH}
    worst, worst_by = None, 1.0
    for name, pace in known.items():
        others = [other for one, other in known.items() if one != name]
        if not others:
            continue
        ttft_s = OUTLIER * median(other.ttft_s for other in others) + TTFT_SLACK_S
        tpot_s = OUTLIER * median(other.tpot_s for other in others) + TPOT_SLACK_S
        by = max(pace.ttft_s / ttft_s, pace.tpot_s / tpot_s)
        if by > worst_by:
            worst, worst_by = name, by
    return worst


def may_eject(endpoints: int, ejected: int) -> bool:
    """Whether one more may be kept away for slowness alone."""
    return ejected + 1 <= max(1, endpoints // 3) and endpoints - ejected >= 2
