"""Shares of limits from the controller: reported to and asked for while meters are in use."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from models.errors import UnreachableError
from serving.background import set_within
from serving.gateway.limits import LimitStoreDownError, WhenDown
from serving.gateway.limits_meter import Demand, Meter, Reserved, Shortage, find_shortage, reserve
from serving.gateway.limits_rules import Rules
from serving.logs import get_logger
from serving.shares import REPORT_S, MeterKind, ShareReply, ShareReport

WAIT_S = 1.5
"""A request waits so long for a share that is about to grow."""

IDLE_S = 62.0
"""A meter that nobody touched for so long has nothing in its window, and is not reported."""

QUIET_S = 1.0
"""One that nobody asks for, and that has let go of its share, is reported this often while its
window empties."""

log = get_logger(__name__)


class ShareLink(Protocol):
    """The controller, as it is seen here."""

    async def shares(self, report: ShareReport) -> ShareReply:
        """Reports meters and takes shares."""
        ...


class SharedMeters:
    """Keeps meters within this gateway's shares."""

    def __init__(
        self,
        rules: Rules,
        link: ShareLink,
        gateway_id: str,
        when_down: WhenDown,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._link = link
        self._gateway_id = gateway_id
        self._when_down = when_down
        self._clock = clock
        self._wanted = asyncio.Event()
        self._answered = asyncio.Event()
        self._sent_at: dict[tuple[str, MeterKind], float] = {}
        self._asked = 0
        self._answered_upto = 0
        self.is_down = False

    async def take(self, wanted: Sequence[Demand]) -> list[Reserved] | Shortage:
        """As Source; waits for a share that is about to grow.

        A controller that says nothing of a share within WAIT_S is as good as away.
        """
        at = self._clock()
        shortage = find_shortage(wanted, at)
        if shortage is not None and shortage.may_grow(at):
            for demand in wanted:
                demand.meter.short += demand.amount
            try:
                shortage = await self._wait(shortage, wanted, at + WAIT_S)
            finally:
                for demand in wanted:
                    demand.meter.short -= demand.amount
        if shortage is not None and shortage.unknown and not shortage.never:
            if self._when_down is WhenDown.DENY:
                raise LimitStoreDownError("limits cannot be checked at the moment")
            shortage = find_shortage(wanted, self._clock(), unheld_is_ours=True)
        if shortage is not None:
            return shortage
        reserved = reserve(wanted, self._clock())
        if any(demand.meter.is_unheld(at) for demand in wanted):
            self._wanted.set()
        return reserved

    def settled(self, taken: Sequence[tuple[Reserved, int]]) -> None:
        """As Source."""
        at = self._clock()
        for reserved, amount in taken:
            if amount != reserved.amount:
                reserved.settle(amount, at)
            reserved.meter.touched_at = at

    async def run(self) -> None:
        """Reports until it is cancelled."""
        while True:
            self._wanted.clear()
            at = self._clock()
            in_use = self._in_use(at)
            if report := self._due(in_use, at):
                await self._tell(report)
            await set_within(self._wanted, REPORT_S if in_use else QUIET_S)

    async def _wait(
        self, shortage: Shortage | None, wanted: Sequence[Demand], until: float
    ) -> Shortage | None:
        """Asks for more until there is enough, or no hope for it."""
        while shortage is not None and shortage.may_grow(self._clock()):
            left_s = until - self._clock()
            if left_s <= 0 or not await self._ask(left_s):
                break
            shortage = find_shortage(wanted, self._clock())
            if shortage is not None and shortage.meter.more:
                # What others have still to let go of is not there any sooner.
                await asyncio.sleep(min(REPORT_S / 4, max(0.0, until - self._clock())))
        return shortage

    async def _ask(self, timeout_s: float) -> bool:
        """Waits for the answer to a report yet to be sent; False if the controller is away."""
        self._asked += 1
        mine = self._asked
        self._wanted.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self._answered_upto < mine and not self.is_down:
                    await self._answered.wait()
        except TimeoutError:
            return False
        return not self.is_down

    def _in_use(self, at: float) -> list[Meter]:
        return [
            meter
            for meter in self._rules.meters()
            if at - meter.touched_at < IDLE_S or _is_held(meter, at)
        ]

    def _due(self, in_use: Sequence[Meter], at: float) -> list[Meter]:
        due = []
        for meter in in_use:
            key = (meter.limit_id, meter.kind)
            sent_at = self._sent_at.get(key, 0.0)
            moves = meter.touched_at >= sent_at or meter.short or meter.spare(at)
            if moves or at - sent_at >= QUIET_S:
                due.append(meter)
        return due

    async def _tell(self, meters: list[Meter]) -> None:
        at = self._clock()
        asked = self._asked
        reports = tuple(meter.report(at) for meter in meters)
        for meter in meters:
            self._sent_at[meter.limit_id, meter.kind] = at
        try:
            reply = await self._link.shares(
                ShareReport(gateway_id=self._gateway_id, meters=reports)
            )
        except UnreachableError as exc:
            if not self.is_down:
                log.warning("limit_shares_away", reason=str(exc), then=self._when_down.value)
            self.is_down = True
        else:
            if self.is_down:
                log.info("limit_shares_back")
            self.is_down = False
            self._hear(reply)
        self._answered_upto = asked
        self._answered.set()
        self._answered = asyncio.Event()

    def _hear(self, reply: ShareReply) -> None:
        at = self._clock()
        for share in reply.shares:
            if (meter := self._rules.meter(share.limit_id, share.kind)) is not None:
                spare = meter.spare(at)
                meter.hear(share, at)
                if meter.spare(at) < spare:  # others may wait for it: tell at once that it is free
                    self._sent_at[share.limit_id, share.kind] = 0.0
                    self._wanted.set()


def _is_held(meter: Meter, at: float) -> bool:
    return meter.kind is MeterKind.CONCURRENT and meter.book.used(at) > 0
