"""A host's agent: registers, takes its assignment, makes it so, and reports what it sees.

Knows neither Ray nor vLLM. One event loop; at most one engine at a time.
"""

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass

from models.errors import NotFoundError, PenstockError, UnavailableError, UnreachableError
from serving import logs
from serving.background import cancel, set_within
from serving.engine.controller_client import ControllerClient
from serving.engine.engine_run import EngineRun
from serving.engine.recorder_reader import FOLDER, RecorderReader
from serving.engine.surroundings import Surroundings
from serving.protocol import (
    REPORT_INTERVAL_S,
    Assignment,
    EngineAssignment,
    EnginePhase,
    EngineReport,
    HostRegistration,
    HostReport,
)

RETRY_S = 0.25
"""Between two tries to reach a controller that is away."""

ENDED = (EnginePhase.STOPPED, EnginePhase.FAILED)

_log = logs.get_logger("penstock.host")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a host is."""

    host_id: str
    pool: str
    node: str
    address: str
    accelerators: tuple[str, ...] = ()
    node_up_s: float | None = None
    """Monotonic seconds at which its machine became a node of Ray; None: nobody knows."""


class HostAgent:
    """Keeps one host in step with the controller; `start` it, `close` it.

    Args:
        identity: Who this host is.
        controller: The controller; closed by `close`.
        around: The host's means to run an engine.
    """

    def __init__(
        self, identity: Identity, controller: ControllerClient, around: Surroundings
    ) -> None:
        self._identity = identity
        self._controller = controller
        self._around = around
        self._assignment = Assignment(version=0)
        self._prefetch_id: str | None = None
        self._assigned = asyncio.Event()
        self._changed = asyncio.Event()
        self._registered = asyncio.Event()
        self._reporting = asyncio.Lock()
        self._run: EngineRun | None = None
        self._running: asyncio.Task[None] | None = None
        self._recorders = RecorderReader(around.log_dir.absolute() / FOLDER, controller.attempts)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts the agent in the running event loop."""
        self._tasks = [
            asyncio.create_task(self._report_forever(), name="report"),
            asyncio.create_task(self._follow_assignment(), name="assignment"),
            asyncio.create_task(self._reconcile_forever(), name="reconcile"),
            asyncio.create_task(self._recorders.run(), name="recorders"),
        ]

    def check(self) -> None:
        """Is the agent at work?

        Raises:
            UnavailableError: If one of its tasks has ended, which none does by itself.
        """
        ended = [task.get_name() for task in self._tasks if task.done()]
        if ended or not self._tasks:
            raise UnavailableError(f"the host's agent has ended: {', '.join(ended) or 'idle'}")
        if self._running is not None and self._running.done():
            self._running.result()

    async def close(self) -> None:
        """Drains and ends the engine, tells the controller, and stops; may be called again."""
        tasks, self._tasks = self._tasks, []
        reporter, deciders = tasks[:1], tasks[1:]
        await cancel(*deciders)
        if self._run is not None and self._running is not None:
            await self._finish(self._run, self._running)
        await self._around.weights.close()
        await cancel(*reporter)
        # What is not told now, the next host on this node finds in the recorders' files.
        with contextlib.suppress(PenstockError, OSError):
            await self._recorders.step()
        await self._controller.close()

    # --- to the controller ----------------------------------------------------------------------

    async def _report_forever(self) -> None:
        while True:
            delivered = await self._try_to_report()
            await set_within(self._changed, REPORT_INTERVAL_S if delivered else RETRY_S)

    async def _try_to_report(self) -> bool:
        """Registers where the controller does not know the host, else reports."""
        async with self._reporting:
            self._changed.clear()
            report = None if self._run is None else self._run.report
            try:
                if not self._registered.is_set():
                    await self._register(report)
                elif not (
                    await self._controller.report(self._identity.host_id, self._seen(report))
                ).known:
                    self._registered.clear()
                    await self._register(report)
            except NotFoundError:
                self._registered.clear()
                return False
            except UnreachableError as exc:
                _log.warning("controller_away", error=str(exc))
                return False
            return True

    def _seen(self, report: EngineReport | None) -> HostReport:
        around = self._around
        return HostReport(engine=report, fetches=around.weights.fetches(), gpus=around.gpus())

    async def _register(self, report: EngineReport | None) -> None:
        identity = self._identity
        running = report if report is not None and report.phase not in ENDED else None
        up_s = identity.node_up_s
        await self._controller.register(
            HostRegistration(
                host_id=identity.host_id,
                pool=identity.pool,
                node=identity.node,
                address=identity.address,
                accelerators=identity.accelerators,
                pid=os.getpid(),
                engine=running,
                node_age_s=None if up_s is None else max(0.0, time.monotonic() - up_s),
            )
        )
        _log.info("registered", host_id=identity.host_id, pool=identity.pool)
        self._registered.set()

    async def _follow_assignment(self) -> None:
        while True:
            await self._registered.wait()
            try:
                assignment = await self._controller.assignment(
                    self._identity.host_id, self._assignment.version, self._prefetch_id
                )
            except NotFoundError:
                self._registered.clear()
                self._changed.set()
                await asyncio.sleep(RETRY_S)
            except UnreachableError:
                await asyncio.sleep(RETRY_S)
            else:
                if assignment.version != self._assignment.version:
                    self._assignment = assignment
                    self._assigned.set()
                    if assignment.prefetch is not None:
                        self._prefetch_id = assignment.prefetch_id
                        self._around.weights.want(assignment.prefetch)

    # --- to the engine --------------------------------------------------------------------------

    async def _reconcile_forever(self) -> None:
        while True:
            await self._assigned.wait()
            self._assigned.clear()
            while not self._in_step():
                if self._run is not None and self._running is not None:
                    await self._finish(self._run, self._running)
                # What is assigned may have changed during the drain, so it is read only now.
                if self._assignment.engine is not None:
                    self._begin(self._assignment.engine)
            if self._run is not None and (wanted := self._assignment.engine) is not None:
                self._run.rest(wanted.sleep_level, wanted.start_id)
                if wanted.adapters is not None:
                    self._run.adapt(wanted.adapters)

    def _in_step(self) -> bool:
        wanted = self._assignment.engine
        wanted_id = None if wanted is None else wanted.engine_id
        return wanted_id == (None if self._run is None else self._run.report.engine_id)

    def _begin(self, wanted: EngineAssignment) -> None:
        _log.info(
            "bound",
            engine_id=wanted.engine_id,
            model=wanted.manifest.name,
            start_id=wanted.start_id,
        )
        self._run = EngineRun(wanted, self._around, self._changed.set)
        self._running = asyncio.create_task(self._run.run(), name="engine")
        self._changed.set()

    async def _finish(self, run: EngineRun, running: asyncio.Task[None]) -> None:
        run.stop(drain=self._assignment.drain)
        await asyncio.wait({running})  # not `await running`: our own cancelling must not reach it
        await self._try_to_report()  # the end of this engine, before the next one is spoken of
        self._run = self._running = None
        self._changed.set()
