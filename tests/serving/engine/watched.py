"""An engine's run that a test follows."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serving.engine.engine_run import EngineRun
from serving.engine.surroundings import Surroundings
from serving.protocol import EngineAssignment, EnginePhase, EngineReport
from tests.serving.engine.fakes import assignment


class Watched:
    """An engine's run whose reports the test can wait for."""

    def __init__(self, around: Surroundings, wanted: EngineAssignment | None = None) -> None:
        self._changed = asyncio.Event()
        self.run = EngineRun(wanted or assignment(), around, self._changed.set)
        self.task = asyncio.create_task(self.run.run())

    async def until(self, holds: Callable[[EngineReport], bool]) -> EngineReport:
        async with asyncio.timeout(30):
            while not holds(self.run.report):
                await self._changed.wait()
                self._changed.clear()
        return self.run.report

    async def until_phase(self, phase: EnginePhase) -> EngineReport:
        return await self.until(lambda report: report.phase is phase)


@asynccontextmanager
async def running(
    around: Surroundings, wanted: EngineAssignment | None = None
) -> AsyncIterator[Watched]:
    watched = Watched(around, wanted)
    try:
        yield watched
    finally:
        watched.run.stop()
        await watched.task
