"""Records what happens: at once in the log, soon in the store. A database that is away loses
events beyond PENDING_MAX, and nothing else."""

import asyncio
import time

from serving.background import set_within
from serving.controller.database import DatabaseError
from serving.controller.store import Store, StoredEvent
from serving.logs import get_logger

PENDING_MAX = 1000
WRITE_RETRY_S = 1.0

log = get_logger(__name__)


class EventLog:
    """Events on their way to the store; `record` never waits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: list[StoredEvent] = []
        self._wanted = asyncio.Event()
        self._writing = asyncio.Lock()

    def record(
        self, kind: str, message: str, *, model: str | None = None, engine_id: str | None = None
    ) -> None:
        """Notes an event; `kind` is one of those that EventView names."""
        log.info(kind, model=model, engine_id=engine_id, message=message)
        self._pending.append(StoredEvent(time.time(), kind, model, engine_id, message))
        del self._pending[:-PENDING_MAX]
        self._wanted.set()

    async def flush(self) -> None:
        """Writes what is pending.

        Raises:
            DatabaseError: If that is not possible; the events stay pending.
        """
        async with self._writing:
            batch = self._pending
            self._pending = []
            try:
                await self._store.add_events(batch)
            except BaseException:
                self._pending = (batch + self._pending)[-PENDING_MAX:]
                raise

    def wake(self) -> None:
        """Has `run` look whether it was stopped."""
        self._wanted.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Writes events as they come; ends when it is woken after `stop`.

        Cancelled amid a write it would leave the database's thread behind.
        """
        while True:
            await self._wanted.wait()
            if stop.is_set():
                return
            self._wanted.clear()
            try:
                await self.flush()
            except DatabaseError as exc:
                log.warning("events_not_written", error=str(exc), pending=len(self._pending))
                self._wanted.set()
                await set_within(stop, WRITE_RETRY_S)
