"""A meter of this gateway, what it may go up to, and whether a request fits on all that it
touches. Pure: time (Unix seconds) is an argument."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serving.gateway.limits_window import Book, Calendar, Present, Window
from serving.identities import LimitRecord
from serving.shares import FIELD_OF, LEASE_S, MeterKind, MeterReport, Share

FRESH_S = 0.02
"""A controller that had no more to give is not asked again within this time."""

WANTED_OVER_S = 5.0
"""Requests weigh in `wanted` for about so long."""


def make_book(kind: MeterKind) -> Book:
    """An empty book for a kind of meter."""
    match kind:
        case MeterKind.CONCURRENT:
            return Present()
        case MeterKind.DAY:
            return Calendar("%Y-%m-%d")
        case MeterKind.MONTH:
            return Calendar("%Y-%m")
        case _:
            return Window()


class Meter:
    """What this gateway let through under one limit."""

    def __init__(self, limit: LimitRecord, kind: MeterKind) -> None:
        self.limit_id = limit.limit_id
        self.kind = kind
        self.name = f"penstock:{limit.limit_id}:{kind}".encode()
        """Of its window in Redis."""
        self.book = make_book(kind)
        self.limit = 0
        self.set_limit(limit)
        self.granted: int | None = None
        self.more = False
        self.short = 0
        """What requests wait for."""
        self.asked = 0
        """What the last report said of that."""
        self.denied_at = -math.inf
        self.heard_at = -math.inf
        self.touched_at = -math.inf
        self._wanted = 0.0
        self._wanted_at = 0.0

    def set_limit(self, record: LimitRecord) -> None:
        """Follows a change of the limit."""
        value: int | None = getattr(record, FIELD_OF[self.kind])
        self.limit = value or 0

    def is_unheld(self, at: float) -> bool:
        """Whether the controller has not said what it may go up to, or not for long."""
        return self.granted is None or at - self.heard_at > LEASE_S

    def cap(self, at: float) -> int | None:
        """What it may go up to; None where the controller has not said, or not for long."""
        granted = self.granted
        if granted is None or at - self.heard_at > LEASE_S:
            return None
        return granted if granted < self.limit else self.limit

    def spare(self, at: float) -> int:
        """What it holds and has not used."""
        cap = self.cap(at)
        return 0 if cap is None else max(0, cap - self.book.used(at))

    def want(self, at: float, amount: int) -> None:
        """Somebody asked for an amount, whether it is given or not."""
        passed_s = at - self._wanted_at
        faded = self._wanted * math.exp(-passed_s / WANTED_OVER_S) if passed_s > 0 else self._wanted
        self._wanted = faded + amount
        self._wanted_at = self.touched_at = at

    def hear(self, share: Share, at: float) -> None:
        """Takes over its share; a meter that nobody asks for lets go of it."""
        wanted = round(self._wanted_now(at)) > 0
        self.granted = share.granted if wanted else None
        self.more, self.heard_at = share.more, at
        if self.asked and share.granted < self.book.used(at) + self.asked:
            self.denied_at = at

    def report(self, at: float) -> MeterReport:
        """What the controller has to know of it."""
        used = self.book.used(at)
        cap = self.cap(at)
        self.asked = self.short
        return MeterReport(
            limit_id=self.limit_id,
            kind=self.kind,
            used=used,
            held=max(used, cap or 0),
            wanted=round(self._wanted_now(at)),
            short=self.short,
            period=self.book.period(at) if isinstance(self.book, Calendar) else "",
        )

    def _wanted_now(self, at: float) -> float:
        return self._wanted * math.exp(-max(0.0, at - self._wanted_at) / WANTED_OVER_S)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request wants of one meter."""

    meter: Meter
    amount: int


@dataclass(slots=True)
class Reserved:
    """What a request has been given of one meter."""

    meter: Meter
    amount: int
    mark: str | int

    def settle(self, amount: int, at: float) -> None:
        """Gives back what was too much, or takes what was too little."""
        if amount != self.amount:
            self.meter.book.correct(self.mark, amount - self.amount, at)
            self.amount = amount


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a request does not fit."""

    meter: Meter
    amount: int
    cap: int
    unknown: bool
    """The controller has not said how much this gateway may have."""

    @property
    def never(self) -> bool:
        """Whether it would not fit on an empty meter either."""
        return self.amount > self.meter.limit

    def may_grow(self, at: float) -> bool:
        """Whether the gateway's share may be larger if it asks, or waits."""
        if self.never:
            return False
        return self.unknown or self.meter.more or at - self.meter.denied_at > FRESH_S


def find_shortage(
    demands: Sequence[Demand], at: float, *, unheld_is_ours: bool = False
) -> Shortage | None:
    """The first meter that a request does not fit on; None if it fits on all.

    Where the controller has not said how much of a limit is this gateway's, its first request
    passes: so that an idle key need not wait, a limit may be overrun by one request for each
    gateway.

    Args:
        unheld_is_ours: Where nobody has said how much is this gateway's, it takes all of it.
    """
    for demand in demands:
        meter = demand.meter
        used = meter.book.used(at)
        cap = meter.cap(at)
        unknown = cap is None
        if cap is None:
            cap = meter.limit if used == 0 or unheld_is_ours else 0
        if used + demand.amount > cap:
            return Shortage(meter, demand.amount, cap, unknown)
    return None


def reserve(demands: Sequence[Demand], at: float) -> list[Reserved]:
    """Takes what the request wants of each meter."""
    return [Reserved(d.meter, d.amount, d.meter.book.add(at, d.amount)) for d in demands]
