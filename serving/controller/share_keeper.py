"""The shares of limits in a running controller, and what was spent of budgets in the store."""

import asyncio
import time

from sqlalchemy import and_, delete, func, insert, or_, select, update

from serving.background import set_within
from serving.controller.database import DatabaseError
from serving.controller.identities import Identities
from serving.controller.shares import MeterId, ShareBook
from serving.controller.store import Store
from serving.controller.tenancy_tables import SPENT
from serving.logs import get_logger
from serving.shares import FIELD_OF, MeterKind, ShareReply, ShareReport

WRITE_S = 1.0
"""What was spent is stored this often: so much of it is forgotten where the whole machine dies."""

DAY_S = 86_400.0

SEPARATOR = "|"

log = get_logger(__name__)


class ShareKeeper:
    """Answers gateways, and remembers budgets."""

    def __init__(self, store: Store, identities: Identities) -> None:
        self._store = store
        self._identities = identities
        self._limits_version = -1
        self._limits = identities.limits()
        self._forgotten = ""
        self.book = ShareBook(self._limit_of, began_s=time.monotonic())

    def report(self, report: ShareReport) -> ShareReply:
        """A gateway tells of its meters, and gets its shares."""
        version = self._identities.changes.version
        if version != self._limits_version:
            self._limits_version, self._limits = version, self._identities.limits()
        return self.book.report(report, time.monotonic())

    async def restore(self) -> None:
        """Reads what was spent before our start.

        Raises:
            DatabaseError: If the database does not answer.
        """
        await self.forget(time.time())
        async with self._store.transaction() as db:
            rows = (await db.execute(select(SPENT))).all()
        self.book.restore((*_of_row(row.meter_id, row.period), row.amount) for row in rows)

    async def run(self, stop: asyncio.Event) -> None:
        """Stores what is spent until it is stopped, and once more then."""
        while not await set_within(stop, WRITE_S):
            self.book.drop_stale(time.monotonic())
            await self.write()
            try:
                await self.forget(time.time())
            except DatabaseError as exc:
                log.warning("budgets_not_forgotten", error=str(exc))
        await self.write()

    async def forget(self, at: float) -> None:
        """Once a day, drops the budgets' days and months that ended more than a day before `at`
        (Unix seconds): gateways may still tell of later ones.

        Raises:
            DatabaseError: If the database does not answer; it is tried again with the next call.
        """
        day = time.strftime("%Y-%m-%d", time.gmtime(at - DAY_S))
        if day == self._forgotten:
            return
        days = and_(func.length(SPENT.c.period) == len(day), SPENT.c.period < day)
        async with self._store.transaction() as db:
            await db.execute(delete(SPENT).where(or_(days, SPENT.c.period < day[:7])))
        self.book.forget(lambda period: period < (day if len(period) == len(day) else day[:7]))
        self._forgotten = day

    async def write(self) -> None:
        """Stores what changed; tried again later where that is not possible."""
        changed, self.book.changed = self.book.changed, set()
        if not changed:
            return
        try:
            async with self._store.transaction() as db:
                for meter_id, gateway in changed:
                    amount = self.book.spent.get(meter_id, {}).get(gateway, 0)
                    name = _row_of(meter_id, gateway)
                    here = and_(SPENT.c.meter_id == name, SPENT.c.period == meter_id[2])
                    done = await db.execute(update(SPENT).where(here).values(amount=amount))
                    if not done.rowcount:
                        row = {"meter_id": name, "period": meter_id[2], "amount": amount}
                        await db.execute(insert(SPENT).values(**row))
        except DatabaseError as exc:
            self.book.changed |= changed
            log.warning("budgets_not_written", error=str(exc), pending=len(changed))

    def _limit_of(self, limit_id: str, kind: MeterKind) -> int | None:
        limit = self._limits.get(limit_id)
        if limit is None:
            return None
        value: int | None = getattr(limit, FIELD_OF[kind])
        return value


def _row_of(meter_id: MeterId, gateway: str) -> str:
    return SEPARATOR.join((gateway, meter_id[1].value, meter_id[0]))[:255]


def _of_row(name: str, period: str) -> tuple[MeterId, str]:
    gateway, kind, limit_id = name.split(SEPARATOR, 2)
    return (limit_id, MeterKind(kind), period), gateway
