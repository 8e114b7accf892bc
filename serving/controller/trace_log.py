"""Copies starts from memory to the store, and tells whole ones to OpenTelemetry; never waited for.

A database that is away loses no start that memory still keeps.
"""

import asyncio
import time
from collections.abc import Callable

from serving.background import set_within
from serving.controller.database import DatabaseError
from serving.controller.store import Store
from serving.controller.trace_rows import read_traces, write_traces
from serving.controller.traces import Trace, Traces
from serving.logs import get_logger

INTERVAL_S = 0.5
"""Between looks for news: a start and its first token are mostly written as one."""

log = get_logger(__name__)


class TraceLog:
    """Keeps the store's copy of the starts up to date.

    Args:
        store: Where the copy is.
        traces: What is copied.
        export: Called with each whole start, once; must not wait.
    """

    def __init__(
        self, store: Store, traces: Traces, export: Callable[[Trace], None] = lambda trace: None
    ) -> None:
        self._store = store
        self._traces = traces
        self._export = export

    async def restore(self) -> None:
        """Begins with what an earlier controller stored.

        Raises:
            DatabaseError: If the database does not answer.
        """
        self._traces.restore(await read_traces(self._store))

    async def flush(self) -> None:
        """Exports and stores what is new.

        Raises:
            DatabaseError: If it cannot be stored; it is tried again with the next call.
        """
        for trace in self._traces.take_whole(time.time()):
            self._export(trace)
        changed = self._traces.take_changed()
        try:
            await write_traces(self._store, changed)
        except BaseException:
            self._traces.put_back(changed)
            raise

    async def run(self, stop: asyncio.Event) -> None:
        """Copies until it is stopped, and once more then."""
        stopped = False
        while not stopped:
            stopped = await set_within(stop, INTERVAL_S)
            try:
                await self.flush()
            except DatabaseError as exc:
                log.warning("starts_not_written", error=str(exc))
