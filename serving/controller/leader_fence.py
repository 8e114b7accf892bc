"""The fence: no transaction of a controller that no longer leads is written.

Before the first write of each transaction the lease's row is looked at within that transaction,
and held until it ends: on PostgreSQL by a lock that renewals pass and a takeover waits for, on
SQLite by the one write lock that there is. A process that was stopped amid a transaction would hold
up the takeover; PostgreSQL ends such a transaction after the lease's time.
"""

import math
from collections.abc import Callable

from sqlalchemy import Connection, event, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from serving.controller.database import DatabaseError
from serving.controller.leader_tables import LEADERSHIP, LEADERSHIP_ROW

WRITES = ("INSERT", "UPDATE", "DELETE")
PASSED = "penstock.fence_passed"

Check = Callable[[Connection], None]


class NotLeaderError(DatabaseError):
    """This controller does not lead; another one does, or soon will."""

    code = "not_leader"


def guard_writes(engine: AsyncEngine, check: Check) -> None:
    """Has `check` called within each transaction of the engine, before its first write."""

    def on_begin(connection: Connection) -> None:
        connection.info.pop(PASSED, None)

    def on_statement(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if PASSED in connection.info or not statement.lstrip()[:6].upper().startswith(WRITES):
            return
        connection.info[PASSED] = True  # the check writes too, on SQLite
        try:
            check(connection)
        except BaseException:
            connection.info.pop(PASSED, None)
            raise

    event.listen(engine.sync_engine, "begin", on_begin)
    event.listen(engine.sync_engine, "before_cursor_execute", on_statement)


def holder_of(token: int, lease_s: float, lost: Callable[[], None]) -> Check:
    """The check of a leader; `lost` is told of a lease that is another's."""
    mine = (LEADERSHIP.c.id == LEADERSHIP_ROW, LEADERSHIP.c.token == token)
    # A change that changes nothing takes SQLite's write lock, and tells whether the row is ours.
    touch = update(LEADERSHIP).where(*mine).values(token=LEADERSHIP.c.token)
    idle_ms = str(math.ceil(lease_s * 1000))
    # For this transaction only: PostgreSQL ends it if it is left alone for a lease.
    patience = func.set_config("idle_in_transaction_session_timeout", idle_ms, True)
    hold = select(patience).where(*mine).with_for_update(read=True, key_share=True)

    def check(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            held = connection.execute(touch).rowcount == 1
        else:
            held = connection.execute(hold).first() is not None
        if not held:
            lost()
            raise NotLeaderError("another controller leads by now; nothing was written")

    return check


def nobody(_connection: Connection) -> None:
    """The check of a standby."""
    raise NotLeaderError("this controller is a standby and writes nothing")
