"""The lease in the database: looked at, taken, renewed, given back; on a connection of its own.

Each step is one statement and its own transaction, so that a process that is stopped amid one
leaves no lock behind. Time is the database's, on SQLite that of the machine that all share.
"""

from typing import Self

from sqlalchemy import Float, cast, event, func, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.sql.elements import ColumnElement

from serving.controller.database import CONNECT_TIMEOUT_S, prepare_sqlite, translated
from serving.controller.leader import Lease
from serving.controller.leader_tables import LEADERSHIP, LEADERSHIP_ROW

HERE = LEADERSHIP.c.id == LEADERSHIP_ROW
JULIAN_1970 = 2440587.5
DAY_S = 86400.0


class LeaseRow:
    """The lease of one database; every method may raise DatabaseError."""

    def __init__(self, engine: AsyncEngine, url: str) -> None:
        self._engine = engine
        self._url = url
        self._now = clock_of(engine.dialect.name)

    @classmethod
    def at(cls, url: str, timeout_s: float) -> Self:
        """The lease in a database that has its tables; a statement may take `timeout_s`."""
        if url.startswith("sqlite"):
            engine = create_async_engine(
                url, isolation_level="AUTOCOMMIT", connect_args={"timeout": timeout_s}
            )
            event.listen(engine.sync_engine, "connect", prepare_sqlite)
            return cls(engine, url)
        engine = create_async_engine(
            url,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=1,
            max_overflow=1,
            connect_args={"timeout": CONNECT_TIMEOUT_S, "command_timeout": timeout_s},
        )
        return cls(engine, url)

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._engine.dispose()

    async def look(self) -> tuple[Lease, float]:
        """The lease, and the time by the database's clock."""
        with translated(self._url):
            async with self._engine.connect() as db:
                row = (
                    await db.execute(select(LEADERSHIP, self._now.label("now")).where(HERE))
                ).one()
        return Lease(row.holder, row.url, row.token, row.expires_at), row.now

    async def take(self, seen: int, holder: str, url: str, lease_s: float) -> int | None:
        """Takes a lease that has run out; its new token, or None where somebody was faster.

        Waits for transactions of the leader before, which hold the row by `leader_fence`.
        """
        free = (
            select(LEADERSHIP.c.id)
            .where(HERE, LEADERSHIP.c.token == seen, LEADERSHIP.c.expires_at <= self._now)
            .with_for_update()
            .correlate(None)
        )
        values = {
            "holder": holder, "url": url, "token": seen + 1, "expires_at": self._now + lease_s,
        }  # fmt: skip
        taken = update(LEADERSHIP).where(LEADERSHIP.c.id == free.scalar_subquery()).values(values)
        return seen + 1 if await self._change(taken) else None

    async def renew(self, token: int, lease_s: float) -> bool:
        """Whether the lease is still its holder's, and now for `lease_s` from the asking."""
        mine = update(LEADERSHIP).where(HERE, LEADERSHIP.c.token == token)
        return await self._change(mine.values(expires_at=self._now + lease_s))

    async def give_back(self, token: int) -> None:
        """Ends the lease now, if it is still its holder's."""
        mine = update(LEADERSHIP).where(HERE, LEADERSHIP.c.token == token)
        await self._change(mine.values(expires_at=0.0))

    async def _change(self, statement: object) -> bool:
        with translated(self._url):
            async with self._engine.connect() as db:
                result = await db.execute(statement)  # type: ignore[call-overload]
                return bool(result.rowcount == 1)


def clock_of(dialect: str) -> ColumnElement[float]:
    """The database's clock in SQL, in Unix seconds; of each statement, not of its transaction."""
    if dialect == "sqlite":
        days = cast(func.julianday("now"), Float)
        return (days - literal(JULIAN_1970, Float)) * literal(DAY_S, Float)
    return cast(text("extract(epoch FROM clock_timestamp())"), Float)
