"""One engine's life as its host leads it: from the assignment to the end of its last process."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from models.errors import UnavailableError, UpstreamError
from models.manifest import AdapterSpec
from models.sources import Have
from serving.background import cancel, set_within
from serving.engine.adapters import AdapterKeeper
from serving.engine.ageing import by_age
from serving.engine.engine_client import EngineClient, Probe
from serving.engine.launch_protocol import Exited, Forked, Reached, Refused
from serving.engine.launcher_client import Lease
from serving.engine.run_report import RunReport
from serving.engine.spawning import request_for, spawn
from serving.engine.surroundings import Surroundings
from serving.protocol import (
    EngineAssignment,
    EnginePhase,
    EngineReport,
    PhaseMark,
    StartPhase,
)

KEPT_LOGS = 20
"""Logs of engines that are kept for each model."""

ADAPTERS_PATIENCE_S = 30.0
"""How long an engine that could serve waits for its LoRA adapters; the rest come while it does."""

GONE_TIMEOUT_S = 10.0
"""Patience with a launcher that has to end an engine; closing its connection is the last word."""


class EngineRun:
    """Starts the assigned engine, watches it, and ends it; `report` is what it has come to.

    Args:
        assignment: The engine.
        around: The host's means.
        on_change: Called whenever `report` has changed.
    """

    def __init__(
        self, assignment: EngineAssignment, around: Surroundings, on_change: Callable[[], None]
    ) -> None:
        self._assignment = assignment
        self._around = around
        self._stop = asyncio.Event()
        self._turn = asyncio.Event()
        self._level = self._wanted_level = 0
        self._start_id = assignment.start_id
        self._drains = True
        self._lease: Lease | None = None
        self._weights: Have | None = None
        self._client: EngineClient | None = None
        self._adapters = AdapterKeeper(assignment.manifest, around.weights)
        self._token = secrets.token_urlsafe(32)
        folder = around.log_dir.absolute() / "engines" / assignment.manifest.name
        self._log_path = folder / f"{assignment.engine_id}.log"
        self._report = RunReport(assignment, self._log_path, on_change)

    @property
    def _serves(self) -> bool:
        """Whether it has the API server, and is not another host's further ranks."""
        gang = self._assignment.gang
        return gang is None or gang.rank == 0

    @property
    def _last_phase(self) -> StartPhase:
        """The last one that a forked engine tells of."""
        return StartPhase.PROBED if self._serves else StartPhase.ENGINE_READY

    @property
    def report(self) -> EngineReport:
        """What the host sees of the engine now."""
        return self._report.now

    def rest(self, level: int, start_id: str) -> None:
        """Has the engine sleep at a level, or wake at 0 for the start of this id; at once true of
        `report` only where it is so already."""
        self._wanted_level, self._start_id = level, start_id
        self._turn.set()

    def adapt(self, adapters: tuple[AdapterSpec, ...]) -> None:
        """Has the engine load these LoRA adapters, and no others; for an event loop that runs."""
        if self._assignment.manifest.engine.lora is not None and self._serves:
            self._adapters.want(adapters)

    def stop(self, *, drain: bool = True) -> None:
        """Has the engine drained, unless that is in vain, and ended; `run` then returns."""
        self._drains = drain
        self._stop.set()

    async def run(self) -> None:
        """Leads the engine's whole life; it is gone, and reported so, when this returns."""
        life = asyncio.create_task(self._live())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({life, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not life.done():
                if self._drains:
                    await self._drain(life)
            elif (exc := life.exception()) is not None:
                self._report.fail(exc)
        finally:
            await cancel(life, stop)
            await self._release()
        if self._report.now.phase is not EnginePhase.FAILED:
            self._report.change(phase=EnginePhase.STOPPED, url=None, token=None)

    async def _live(self) -> None:
        """Raises when the engine ends by itself; else it goes on until it is cancelled."""
        manifest, around = self._assignment.manifest, self._around
        self._weights = await around.weights.have(manifest)
        folder = self._weights.folder
        given = self._assignment.adapters
        self.adapt(manifest.adapters if given is None else given)  # fetched while it starts
        if self._weights.waited:
            self._report.mark(StartPhase.FETCHED, time.time())
        request = request_for(self._assignment, around, folder, self._token, self._log_path)
        self._lease = await spawn(request, manifest.engine.build, around)
        await asyncio.to_thread(_prune_logs, self._log_path.parent)  # while the engine starts
        forked = asyncio.get_running_loop().create_future()
        probed = asyncio.get_running_loop().create_future()
        follower = asyncio.create_task(self._follow(self._lease, forked, probed))
        watcher = asyncio.create_task(self._bring_up_and_watch(forked, probed))
        try:
            done, _ = await asyncio.wait({follower, watcher}, return_when=asyncio.FIRST_COMPLETED)
            for task in (follower, watcher):  # the launcher knows best why an engine ended
                if task in done:
                    task.result()
        finally:
            await cancel(follower, watcher)

    async def _follow(
        self, lease: Lease, forked: "asyncio.Future[Forked]", probed: "asyncio.Future[Probe]"
    ) -> None:
        """Takes in what the launcher tells; raises when the engine is no more."""
        async for event in lease.events():
            match event:
                case Forked():
                    self._report.mark(StartPhase.FORKED, event.at, pid=event.pid)
                    forked.set_result(event)
                case Reached():
                    self._report.mark(event.phase, event.at)
                    if event.phase is self._last_phase and not probed.done():
                        probed.set_result(Probe(max_model_len=event.max_model_len))
                case Refused():
                    raise UnavailableError(event.reason, hint=event.hint)
                case Exited():
                    if event.killed:
                        self._report.change(killed=True)
                    raise UpstreamError(event.cause, hint=event.hint)
        raise UnavailableError(
            "this node's launcher went away, and the engine with it",
            hint="it is started again by itself; its log says why it ended",
        )

    async def _bring_up_and_watch(
        self, forked: "asyncio.Future[Forked]", probed: "asyncio.Future[Probe]"
    ) -> None:
        born = await forked
        if not self._serves:
            if born.mode != "exec":  # an executed one does not tell
                await probed
            self._report.change(phase=EnginePhase.READY)
            await asyncio.Event().wait()  # the launcher tells of its end
        address = self._around.address
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{born.port}"
        self._client = EngineClient(url, self._token, self._around.transport)
        if born.mode != "exec":
            probe = await probed
        else:
            await self._client.wait_until_it_listens()
            self._report.mark(StartPhase.ENGINE_READY, time.time())
            probe = await self._client.probe(self._assignment.manifest.name)
            self._report.mark(StartPhase.PROBED, time.time())
        async with self._adapted(self._client):
            self._report.change(
                phase=EnginePhase.READY,
                url=url,
                token=self._token,
                max_model_len=probe.max_model_len,
            )
            await self._watch(self._client, url)

    @contextlib.asynccontextmanager
    async def _adapted(self, client: EngineClient) -> AsyncIterator[None]:
        """While the block runs, the engine has the adapters that are wanted, or says why not."""
        if self._assignment.manifest.engine.lora is None or self._weights is None:
            yield
            return
        keeping = asyncio.create_task(self._adapters.run(client, self._weights.folder))
        telling = asyncio.create_task(self._tell_of_adapters())
        try:
            # The model need not wait for them for ever.
            await set_within(self._adapters.settled, ADAPTERS_PATIENCE_S)
            self._report.note(adapters=self._adapters.reports)
            yield
        finally:
            await cancel(keeping, telling)

    async def _tell_of_adapters(self) -> None:
        while True:
            await self._adapters.changed.wait()
            self._adapters.changed.clear()
            self._report.change(adapters=self._adapters.reports)

    async def _watch(self, client: EngineClient, url: str) -> None:
        """Looks after the engine.

        Raises:
            UpstreamError: If it is not well.
        """
        await client.load()  # from now on it counts its steps
        failures = 0
        while failures < self._around.health_failures:
            await set_within(self._turn, self._around.health_interval_s)
            self._turn.clear()
            while self._level != self._wanted_level:
                await self._turn_over(client, url)
            failures = 0 if await client.is_healthy() else failures + 1
            self._report.note(load=await client.load())
        raise UpstreamError(f"the engine failed {failures} health checks in a row")

    async def _turn_over(self, client: EngineClient, url: str) -> None:
        """From awake to asleep, or back; from one depth of sleep to another by way of awake."""
        if self._level == 0:
            self._level = self._wanted_level
            self._report.change(phase=EnginePhase.SLEEPING, url=None, token=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._around.drain_timeout_s):
                    await self._until_idle(client)
            await client.sleep(self._level)
            return
        began = PhaseMark(phase=StartPhase.BOUND, at=time.time())
        self._report.change(start_id=self._start_id, marks=(began,))
        await client.wake(self._level)
        self._level = 0
        self._report.mark(StartPhase.ENGINE_READY, time.time())
        await client.probe(self._assignment.manifest.name)
        self._report.mark(StartPhase.PROBED, time.time())
        self._report.change(phase=EnginePhase.READY, url=url, token=self._token)

    async def _drain(self, life: "asyncio.Task[None]") -> None:
        was_ready = self._report.now.phase is EnginePhase.READY
        self._report.change(phase=EnginePhase.DRAINING)
        if was_ready and self._client is not None:
            idle = asyncio.create_task(self._until_idle(self._client))
            await asyncio.wait(
                {life, idle},
                timeout=self._around.drain_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            await cancel(idle)

    async def _until_idle(self, client: EngineClient) -> None:
        """Returns when nothing runs twice in a row: a request may just have been on its way."""
        idle = 0
        while idle < 2:
            await asyncio.sleep(self._around.drain_poll_s)
            idle = idle + 1 if await client.in_flight() == 0 else 0

    async def _release(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._lease is not None:
            self._lease.give_up()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GONE_TIMEOUT_S):
                    async for _ in self._lease.events():
                        pass
            await self._lease.close()
        await self._adapters.close()
        if self._weights is not None:
            self._weights.release()


def _prune_logs(folder: Path) -> None:
    """Removes the oldest logs of a model: each start of an engine leaves one."""
    for path in by_age(folder.glob("*.log"))[: -KEPT_LOGS + 1]:
        path.unlink(missing_ok=True)
