"""What a gateway has taken of a window in Redis before it was asked for. Pure: time is an argument.

A key that comes often need not be looked up each time: with a request that goes to Redis the
gateway takes what the key is about to ask for within HOLD_S, at its present pace and at most a
small part of what is left, so that near a limit every request is counted on its own. It counts as
used from the moment it is taken, in a bucket that is not over before it lapses: no limit is passed
by it. What was not asked for is given back when it lapses, which is well within a second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from serving.gateway.limits_script import HOLD_BUCKETS, Claim, Correction, Outcome, Verdict
from serving.gateway.limits_window import GRAIN_S

HOLD_S = HOLD_BUCKETS * GRAIN_S

GROWTH = 4
"""What is taken ahead, in what was used since the last time, at most: a pace takes time to tell."""

PACE_S = 0.005
"""Requests of less time than this are a burst, and tell no pace."""

FRESH_S = 0.02
"""So long after a refusal a request for as much is refused without asking."""


IDLE_S = 5.0
"""A window that nobody asked for since is forgotten."""


@dataclass(slots=True)
class Grant:
    """What is held of one window."""

    bucket: int
    left: int
    until_s: float


class Ahead:
    """One window's; monotonic seconds."""

    __slots__ = ("_asked_s", "_refused", "_refused_s", "_used", "grant", "is_asking", "seen_s")

    def __init__(self) -> None:
        self.grant: Grant | None = None
        self.is_asking = False
        """A request is on its way that takes something ahead."""
        self.seen_s = -math.inf
        self._asked_s = -math.inf
        self._used = 0
        self._refused = 0  # the least amount that did not fit
        self._refused_s = -math.inf

    def covers(self, amount: int, now_s: float) -> bool:
        """Whether so much is held."""
        grant = self.grant
        return grant is not None and grant.left >= amount and now_s < grant.until_s

    def use(self, amount: int, now_s: float) -> int:
        """Takes from what is held; the bucket that it is counted in."""
        assert self.grant is not None
        self.grant.left -= amount
        self._used += amount
        self.seen_s = now_s
        return self.grant.bucket

    def ask(self, amount: int, now_s: float) -> int:
        """A request goes to Redis: so much is to be taken ahead with it."""
        passed_s = now_s - self._asked_s
        self.seen_s = now_s
        self._used += amount
        if self.is_asking or passed_s < PACE_S:
            return 0
        used, self._used, self._asked_s = self._used, 0, now_s
        wanted = 0 if passed_s > 2 * HOLD_S else min(GROWTH * used, int(used * HOLD_S / passed_s))
        self.is_asking = wanted > 0
        return wanted

    def granted(self, amount: int, bucket: int, asked_s: float) -> None:
        """So much was taken ahead, which was asked for at that time."""
        self.is_asking = False
        self.grant = Grant(bucket, amount, asked_s + HOLD_S) if amount else None

    def refused(self, amount: int, now_s: float) -> None:
        """So much did not fit."""
        if now_s - self._refused_s > FRESH_S or amount < self._refused:
            self._refused, self._refused_s = amount, now_s

    def surely_refuses(self, amount: int, now_s: float) -> bool:
        """Whether as much as this did not fit just now."""
        return now_s - self._refused_s <= FRESH_S and amount >= self._refused

    def give_back(self) -> Grant | None:
        """Lets go of what is held; None where that is nothing."""
        grant, self.grant = self.grant, None
        return grant if grant is not None and grant.left else None


class Aheads:
    """Of all windows that this gateway counts in."""

    def __init__(self) -> None:
        self._windows: dict[bytes, Ahead] = {}

    def __bool__(self) -> bool:
        return bool(self._windows)

    def known(self, claims: Sequence[Claim], now_s: float) -> Verdict | None:
        """What can be said of a request without asking; None where that is nothing."""
        is_held, aheads = True, []
        for number, claim in enumerate(claims, 1):
            ahead = self._windows.get(claim.window)
            if ahead is None:
                is_held = False
                continue
            if ahead.surely_refuses(claim.amount, now_s):
                return Verdict(number)
            is_held = is_held and ahead.covers(claim.amount, now_s)
            aheads.append(ahead)
        if not is_held:
            return None
        pairs = zip(claims, aheads, strict=True)
        return Verdict(0, [ahead.use(claim.amount, now_s) for claim, ahead in pairs])

    def ask(
        self, claims: Sequence[Claim], now_s: float
    ) -> tuple[Sequence[Claim], list[Correction]]:
        """A request's claims as they go to Redis, and what is held and goes back with them."""
        asked, back = [], []
        for claim in claims:
            ahead = self._windows.setdefault(claim.window, Ahead())
            if (grant := ahead.give_back()) is not None:
                back.append((claim.window, -grant.left, grant.bucket))
            wanted = ahead.ask(claim.amount, now_s)
            asked.append(replace(claim, ahead=wanted) if wanted else claim)
        return asked, back

    def note(self, claims: Sequence[Claim], outcome: Outcome, asked_s: float, now_s: float) -> None:
        """What Redis answered to claims that were asked at a time."""
        for claim, amount in zip(claims, outcome.ahead, strict=True):
            if claim.ahead and (ahead := self._windows.get(claim.window)) is not None:
                ahead.granted(amount, outcome.ahead_bucket, asked_s)
        if outcome.verdict.failed:
            claim = claims[outcome.verdict.failed - 1]
            if (ahead := self._windows.get(claim.window)) is not None:
                ahead.refused(claim.amount, now_s)

    def lapse(self, now_s: float) -> list[Correction]:
        """What goes back because nobody asked for it; windows that are idle are forgotten."""
        back = self._back(now_s)
        for window, ahead in list(self._windows.items()):
            if ahead.grant is None and not ahead.is_asking and now_s - ahead.seen_s > IDLE_S:
                del self._windows[window]
        return back

    def let_go(self) -> list[Correction]:
        """All that is held goes back."""
        return self._back(math.inf)

    def _back(self, until_s: float) -> list[Correction]:
        back = []
        for window, ahead in self._windows.items():
            if ahead.grant is None or ahead.grant.until_s > until_s:
                continue
            if (grant := ahead.give_back()) is not None:
                back.append((window, -grant.left, grant.bucket))
        return back

    def clear(self) -> None:
        """Redis is away: nobody knows what it still counts."""
        self._windows.clear()
