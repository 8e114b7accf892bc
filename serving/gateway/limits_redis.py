"""Limits counted in Redis: exact over all gateways.

Requests and tokens of a minute are counted there (`limits_store`). What is in use at once, and
budgets, stay with the controller's shares: a gateway that dies would leave the first behind in
Redis, and the second have to outlive Redis.
"""

import time
from collections.abc import Callable, Sequence

from serving.gateway.limits import LimitStoreDownError, WhenDown
from serving.gateway.limits_meter import Demand, Meter, Reserved, Shortage
from serving.gateway.limits_script import Claim
from serving.gateway.limits_shares import SharedMeters
from serving.gateway.limits_store import LimitStore
from serving.gateway.redis_link import RedisAddress
from serving.shares import MeterKind

TIMEOUT_S = 0.25
"""A Redis that takes longer is down."""

COUNTED_THERE = frozenset({MeterKind.REQUESTS, MeterKind.INPUT, MeterKind.OUTPUT})


class RedisMeters:
    """Counts in Redis what can be counted there, and leaves the rest to the shares."""

    def __init__(
        self,
        url: str,
        shared: SharedMeters,
        when_down: WhenDown,
        clock: Callable[[], float] = time.time,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._store = LimitStore(RedisAddress.of(url), timeout_s, when_down.value)
        self._shared = shared
        self._when_down = when_down
        self._clock = clock

    async def close(self) -> None:
        """Ends what is under way, and closes the connection."""
        await self._store.close()

    async def take(self, wanted: Sequence[Demand]) -> list[Reserved] | Shortage:
        """As Source."""
        there = [demand for demand in wanted if demand.meter.kind in COUNTED_THERE]
        here = [demand for demand in wanted if demand.meter.kind not in COUNTED_THERE]
        outcome = await self._take(there) if there else []
        if isinstance(outcome, Shortage) or not here:
            return outcome
        try:
            rest = await self._shared.take(here)
        except BaseException:
            self._give_back(outcome)
            raise
        if isinstance(rest, Shortage):
            self._give_back(outcome)
            return rest
        return outcome + rest

    def settled(self, taken: Sequence[tuple[Reserved, int]]) -> None:
        """As Source."""
        here = [pair for pair in taken if pair[0].meter.kind not in COUNTED_THERE]
        if here:
            self._shared.settled(here)
        for reserved, amount in taken:
            if reserved.meter.kind in COUNTED_THERE:
                self._settled_there(reserved, amount)

    def _settled_there(self, reserved: Reserved, amount: int) -> None:
        difference = amount - reserved.amount
        if difference:
            mark = reserved.mark
            reserved.meter.book.correct(_own_mark(mark), difference, self._clock())
            if isinstance(mark, str):
                bucket = int(mark.partition(":")[0])
                self._store.correct(reserved.meter.name, bucket, difference)
            reserved.amount = amount

    async def _take(self, wanted: list[Demand]) -> list[Reserved] | Shortage:
        claims = [Claim(d.meter.name, d.amount, d.meter.limit) for d in wanted]
        verdict = await self._store.take(claims)
        at = self._clock()
        if verdict is None:
            return self._take_alone(wanted, at)
        for demand, total in zip(wanted, verdict.used, strict=False):
            _mirror(demand.meter, total, at)
        if verdict.failed:
            demand = wanted[verdict.failed - 1]
            return Shortage(demand.meter, demand.amount, demand.meter.limit, unknown=False)
        return [
            Reserved(d.meter, d.amount, f"{bucket}:{d.meter.book.add(at, d.amount)}")
            for d, bucket in zip(wanted, verdict.buckets, strict=True)
        ]

    def _take_alone(self, wanted: list[Demand], at: float) -> list[Reserved] | Shortage:
        """Redis is down: refuse, or count for this gateway alone."""
        if self._when_down is WhenDown.DENY:
            raise LimitStoreDownError("limits cannot be checked at the moment")
        for d in wanted:
            if d.meter.book.used(at) + d.amount > d.meter.limit:
                return Shortage(d.meter, d.amount, d.meter.limit, unknown=False)
        return [Reserved(d.meter, d.amount, d.meter.book.add(at, d.amount)) for d in wanted]

    def _give_back(self, reserved: list[Reserved]) -> None:
        self.settled([(one, 0) for one in reserved])


def _own_mark(mark: str | int) -> str | int:
    return int(mark.partition(":")[2]) if isinstance(mark, str) else mark


def _mirror(meter: Meter, total: int, at: float) -> None:
    """Has the gateway's own book say what Redis says, for the headers and for a fall-back."""
    difference = total - meter.book.used(at)
    if difference:
        meter.book.add(at, difference)
