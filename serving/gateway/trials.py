"""Which requests try a new revision, and how the attempts at each revision end. Pure."""

import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from serving.protocol import CanaryRoute, RevisionCounts, bucket_of

PARTS = 10_000


class Turns:
    """Deals the requests of one model out to its two revisions.

    In random order, for a client's long and short requests may alternate too, but after each
    request within one of the share: what is due to the new revision is the chance that it gets the
    next one. Draws alone would stray from a share of 25% by 2.5 points within 300 requests.

    Args:
        draw: A random number, 0 to 1.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._due = 0.0  # requests that the new revision should have had more; from -1 to 1

    def tries_new(self, canary: CanaryRoute | None, tenant: str, session: str | None) -> bool:
        """Whether the next request goes to the new revision, by its share of the requests.

        Who is sticky stays on the new one as the share grows: a name's place among PARTS is fixed.
        """
        if canary is None:
            self._due = 0.0
            return False
        name = {"tenant": tenant, "session": f"{tenant}/{session}" if session else None}.get(
            canary.sticky
        )
        if name:
            return zlib.crc32(name.encode()) % PARTS < canary.share * PARTS
        if not canary.share:
            return False
        self._due += canary.share
        if self._draw() >= self._due:
            return False
        self._due -= 1.0
        return True


@dataclass(slots=True)
class _Counted:
    answered: int = 0
    failed: int = 0
    ttft: Counter[int] = field(default_factory=Counter)
    tpot: Counter[int] = field(default_factory=Counter)


class Trials:
    """How attempts ended at each revision, since the last report."""

    def __init__(self) -> None:
        self._counted: dict[int, _Counted] = {}

    def answered(self, revision: int, ttft_s: float | None, tpot_s: float | None) -> None:
        """An answer was complete; times of a streamed one."""
        counted = self._counted.setdefault(revision, _Counted())
        counted.answered += 1
        if ttft_s is not None:
            counted.ttft[bucket_of(ttft_s)] += 1
        if tpot_s:
            counted.tpot[bucket_of(tpot_s)] += 1

    def failed(self, revision: int) -> None:
        """The engine broke off, or said that it failed."""
        self._counted.setdefault(revision, _Counted()).failed += 1

    def take(self) -> tuple[RevisionCounts, ...]:
        """What was counted; it begins anew."""
        counted, self._counted = self._counted, {}
        return tuple(
            RevisionCounts(
                revision=revision, answered=one.answered, failed=one.failed,
                ttft=dict(one.ttft), tpot=dict(one.tpot),
            )
            for revision, one in counted.items()
        )  # fmt: skip

    def take_back(self, counts: Iterable[RevisionCounts]) -> None:
        """Adds what a report that got lost had."""
        for lost in counts:
            counted = self._counted.setdefault(lost.revision, _Counted())
            counted.answered += lost.answered
            counted.failed += lost.failed
            counted.ttft.update(lost.ttft)
            counted.tpot.update(lost.tpot)
