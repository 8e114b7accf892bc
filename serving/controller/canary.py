"""A canary: a new revision beside the old one, on a growing share of the traffic. Pure.

    progressing ──(the step's time is over and the gate holds)──▶ next step ──▶ ... ──▶ promoted
         │  ▲
         │  └── paused: shares stay, nothing is judged
         └──(the gate does not hold, or its engine does not start)──▶ rolled back

Both revisions are measured over the same time, that of the present step, and judged only once each
has had its minimum of answers. A worse new revision need not wait for the end of the step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from models.rollout_spec import CanarySpec
from serving.protocol import RevisionCounts, bucket_end_s

P95 = 0.95
DEATHS = 2
"""So many engines of the new revision that die within a step, where more of them die than of the
old one's: one may die of its machine. Their requests went on to the old revision, or broke."""

SURE = 2.0
"""Standard errors by which a share of errors has to exceed what is allowed."""


class Verdict(StrEnum):
    """What becomes of a canary now."""

    STAYS = "stays"
    GROWS = "grows"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Figures:
    """What one revision did within a step."""

    answered: int = 0
    failed: int = 0
    ttft: Mapping[int, int] = field(default_factory=dict)  # answers by bucket
    tpot: Mapping[int, int] = field(default_factory=dict)

    @property
    def tried(self) -> int:
        """Attempts that ended, one way or the other."""
        return self.answered + self.failed

    @property
    def error_rate(self) -> float:
        """Share of the attempts that failed."""
        return self.failed / self.tried if self.tried else 0.0

    def plus(self, counts: RevisionCounts) -> "Figures":
        """With what one gateway reported."""
        return Figures(
            self.answered + counts.answered,
            self.failed + counts.failed,
            _sum(self.ttft, counts.ttft),
            _sum(self.tpot, counts.tpot),
        )


@dataclass(frozen=True, slots=True)
class Canary:
    """One model's canary. Times in Unix seconds: it outlives the controller."""

    model: str
    stable: int  # the revision that was there before
    candidate: int
    step: int = 0  # index into the steps
    step_at: float = 0.0
    paused: bool = False
    old: Figures = Figures()
    new: Figures = Figures()
    old_deaths: int = 0  # engines that were ready and died, within this step
    new_deaths: int = 0

    def share(self, spec: CanarySpec) -> float:
        """Share of the requests that the new revision gets, 0 to 1."""
        return spec.steps[min(self.step, len(spec.steps) - 1)] / 100

    def heard(self, revision_is_new: bool, counts: RevisionCounts) -> "Canary":
        """With what a gateway reported of one of the two revisions."""
        if revision_is_new:
            return replace(self, new=self.new.plus(counts))
        return replace(self, old=self.old.plus(counts))

    def died(self, revision_is_new: bool) -> "Canary":
        """With the death of an engine that was ready."""
        if revision_is_new:
            return replace(self, new_deaths=self.new_deaths + 1)
        return replace(self, old_deaths=self.old_deaths + 1)


def engines(target: int, share: float) -> tuple[int, int]:
    """How many engines the old and the new revision get of a target, each at least one."""
    if target <= 0:
        return 0, 0
    return max(1, math.ceil(target * (1 - share))), max(1, math.ceil(target * share))


def advance(canary: Canary, spec: CanarySpec, now: float) -> tuple[Canary, Verdict, str]:
    """The canary a moment later, what became of it, and why, in a sentence with its numbers."""
    if canary.paused:
        return canary, Verdict.STAYS, "paused"
    old, new = canary.old, canary.new
    if (deaths := canary.new_deaths) >= DEATHS and deaths > canary.old_deaths:
        died = f"{deaths} of its engines died, {canary.old_deaths} of the old revision's"
        return canary, Verdict.ROLLED_BACK, died
    if new.tried >= spec.min_requests and (fault := _fault(old, new, spec)):
        return canary, Verdict.ROLLED_BACK, fault
    left_s = canary.step_at + spec.step_s - now
    if left_s > 0:
        return canary, Verdict.STAYS, f"the step lasts {left_s:.0f} s more"
    for who, figures in (("new", new), ("old", old)):
        if figures.tried < spec.min_requests:
            said = f"the {who} revision has answered {figures.tried} of {spec.min_requests}"
            return canary, Verdict.STAYS, said + " requests that a step takes"
    told = (
        f"{new.error_rate:.1%} of {new.tried} attempts failed, {old.error_rate:.1%} of {old.tried} "
        f"at the old revision; TTFT p95 {_ms(new.ttft)} against {_ms(old.ttft)}, "
        f"TPOT p95 {_ms(new.tpot)} against {_ms(old.tpot)}"
    )
    step = canary.step + 1
    if step >= len(spec.steps) or spec.steps[step] == 100:
        return canary, Verdict.PROMOTED, told
    grown = Canary(canary.model, canary.stable, canary.candidate, step, now)
    return grown, Verdict.GROWS, told


def _fault(old: Figures, new: Figures, spec: CanarySpec) -> str | None:
    """Why the new revision must go, or None."""
    gate = spec.gate
    allowed = old.error_rate + gate.error_rate
    noise = SURE * math.sqrt(max(allowed * (1 - allowed), 0.0) / new.tried)
    if new.error_rate > allowed + noise:
        return (
            f"{new.error_rate:.1%} of {new.tried} attempts failed, {old.error_rate:.1%} of "
            f"{old.tried} at the old revision, and {gate.error_rate:.1%} more are allowed"
        )
    for name, factor, mine, theirs in (
        ("TTFT", gate.ttft_p95, new.ttft, old.ttft),
        ("TPOT", gate.tpot_p95, new.tpot, old.tpot),
    ):
        enough = min(sum(mine.values()), sum(theirs.values())) >= spec.min_requests
        if factor is None or not enough:
            continue
        new_s, old_s = percentile_s(mine), percentile_s(theirs)
        if new_s > factor * old_s:
            return (
                f"{name} p95 is {1000 * new_s:.1f} ms, {1000 * old_s:.1f} ms at the old revision, "
                f"and {factor:g} times that is allowed"
            )
    return None


def percentile_s(buckets: Mapping[int, int]) -> float:
    """The 95th percentile, as the end of the bucket in which it lies; 0 where there is nothing."""
    rank = P95 * sum(buckets.values())
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= rank:
            return bucket_end_s(bucket)
    return 0.0


def _ms(buckets: Mapping[int, int]) -> str:
    return f"{1000 * percentile_s(buckets):.1f} ms" if buckets else "unknown"


def _sum(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    total = dict(one)
    for bucket, count in other.items():
        total[bucket] = total.get(bucket, 0) + count
    return total
