"""Several gateways behind one listening socket, and their successors: `penstock gateway`.

This process opens the socket and serves nothing. Each worker is a gateway of its own towards the
controller, and gets the open descriptor: a successor accepts from the same queue as the worker
before it, so that no connection is refused in between, and the old one leaves when its streams
have ended. (With a socket each and SO_REUSEPORT, closing one resets what waits in its queue.)
A worker that dies is replaced, and so is one that hangs (`pulse`), after it was killed.

    SIGHUP            all workers are replaced, by what is installed now
    SIGTERM, SIGINT   all workers end their streams, then all is over
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from models.errors import NotFoundError, UnavailableError
from serving.gateway.handover import Handover
from serving.gateway.pulse import LOOK_S, Pulse
from serving.gateway.server import listen
from serving.logs import configure, get_logger
from serving.processes import ProcessRef
from serving.settings import GatewaySettings

READY_TIMEOUT_S = 60.0
"""A worker that has not said it is ready by then has failed."""

STOP_GRACE_S = 10.0
"""Beyond the drain time, before a worker is killed."""

RESTART_S = 1.0
"""Wait before a worker that died is replaced."""

PID_FILE = "gateway.pid"
"""In the gateway's state folder: whom `--reload` tells."""

log = get_logger(__name__)


class WorkerError(UnavailableError):
    """A worker does not start."""

    code = "worker_failed"


class Workers:
    """A supervisor of gateways.

    Args:
        settings: Where to listen, and how long streams get to end.
        count: Workers at once.
        command: What starts one; the handover's arguments are added.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        count: int,
        command: Sequence[str] = (sys.executable, "-m", "serving.gateway.app"),
    ) -> None:
        self._settings = settings
        self._count = count
        self._command = command
        self._socket: socket.socket | None = None
        self._life = (-1, -1)
        self._serving: set[asyncio.subprocess.Process] = set()
        self._watchers: set[asyncio.Task[None]] = set()
        self._reload = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT.

        Raises:
            PortTakenError: If nobody can listen there.
            WorkerError: If the first workers do not start.
        """
        self._socket = listen(self._settings)
        self._life = os.pipe()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            self._serving = await self._generation()
            with PidFile(self._settings.gateway_state_dir):
                self._say_where()
                await self._supervise()
        finally:
            self._socket.close()
            await asyncio.gather(*(self._retire(worker) for worker in self._serving))
            for watcher in self._watchers:
                watcher.cancel()
            await asyncio.gather(*self._watchers, return_exceptions=True)
            for end in self._life:
                os.close(end)

    async def _supervise(self) -> None:
        while not self._stop.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self._stop, self._reload)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if self._reload.is_set() and not self._stop.is_set():
                self._reload.clear()
                await self._replace_all()

    async def _replace_all(self) -> None:
        try:
            successors = await self._generation()
        except WorkerError as exc:
            log.error("reload_failed", reason=str(exc), hint=exc.hint)
            return
        before, self._serving = self._serving, successors
        log.info("reloaded", pids=[worker.pid for worker in successors])
        for worker in before:
            self._watch(self._retire(worker))

    async def _generation(self) -> set[asyncio.subprocess.Process]:
        starting = [asyncio.create_task(self._start()) for _ in range(self._count)]
        started = await asyncio.gather(*starting, return_exceptions=True)
        workers = {one for one in started if isinstance(one, asyncio.subprocess.Process)}
        failures = [one for one in started if isinstance(one, BaseException)]
        if failures:
            await asyncio.gather(*(self._retire(worker) for worker in workers))
            raise failures[0]
        for worker in workers:
            self._watch(self._replace_when_dead(worker))
        return workers

    async def _start(self) -> asyncio.subprocess.Process:
        if self._socket is None:
            raise WorkerError("there is nothing to listen at")
        read_end, write_end = os.pipe()
        pulse = await Pulse.of(read_end)
        handover = Handover(self._socket.fileno(), write_end, self._life[0])
        with ExitStack() as undo:
            undo.callback(pulse.close)
            try:
                worker = await asyncio.create_subprocess_exec(
                    *self._command, *handover.arguments(),
                    pass_fds=(handover.listening, handover.ready, handover.life),
                )  # fmt: skip
            finally:
                os.close(write_end)
            if not await pulse.ready(READY_TIMEOUT_S):
                with suppress(ProcessLookupError):
                    worker.kill()
                await worker.wait()
                raise WorkerError("a gateway does not start", hint="its log says why, just above")
            undo.pop_all()
        self._watch(self._listen(worker, pulse))
        return worker

    async def _listen(self, worker: asyncio.subprocess.Process, pulse: Pulse) -> None:
        """Kills a worker that hangs; that it died is seen as of any other."""
        try:
            while worker.returncode is None:
                await asyncio.sleep(LOOK_S)
                if pulse.look():
                    log.error("worker_hangs", pid=worker.pid)
                    with suppress(ProcessLookupError):
                        worker.kill()
                    return
        finally:
            pulse.close()

    async def _replace_when_dead(self, worker: asyncio.subprocess.Process) -> None:
        code = await worker.wait()
        while worker in self._serving and not self._stop.is_set():
            log.error("worker_died", pid=worker.pid, exit_code=code)
            await asyncio.sleep(RESTART_S)
            try:
                successor = await self._start()
            except WorkerError as exc:
                log.error("worker_not_restarted", reason=str(exc))
                continue
            if worker in self._serving and not self._stop.is_set():
                self._serving = self._serving - {worker} | {successor}
                self._watch(self._replace_when_dead(successor))
            else:  # a reload or the end came in between
                await self._retire(successor)

    async def _retire(self, worker: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            worker.terminate()
        try:
            async with asyncio.timeout(self._settings.drain_timeout_s + STOP_GRACE_S):
                await worker.wait()
        except TimeoutError:
            log.error("worker_killed", pid=worker.pid)
            with suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()

    def _watch(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def _say_where(self) -> None:
        if self._socket is not None:
            host, port = self._socket.getsockname()[:2]
            pids = [worker.pid for worker in self._serving]
            log.info("serving", host=host, port=port, url=f"http://{host}:{port}", pids=pids)


class PidFile:
    """Names this process in the state folder, by pid and start time, while the block runs."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PID_FILE
        own = ProcessRef.of_this()
        self._line = f"{own.pid} {own.started}\n"

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(self._line)

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, UnicodeDecodeError):
            if self._path.read_text() == self._line:
                self._path.unlink()


def reload(settings: GatewaySettings) -> int:
    """Tells the running supervisor to replace its workers; returns its pid.

    Raises:
        NotFoundError: If none runs with this state folder.
    """
    path = settings.gateway_state_dir / PID_FILE
    if (pid := _named_by(path)) is not None:
        with suppress(ProcessLookupError):  # it may just have ended
            os.kill(pid, signal.SIGHUP)
            return pid
    raise NotFoundError(
        f"no gateway runs that {path} speaks of",
        hint="start one with `penstock gateway`, or set PENSTOCK_GATEWAY_STATE_DIR as it has",
    )


def _named_by(path: Path) -> int | None:
    """The pid that a PidFile holds, where that very process runs."""
    try:
        pid, *started = map(int, path.read_text().split())
        if started:
            return pid if ProcessRef(pid=pid, started=started[0]).is_alive() else None
        # A gateway of an earlier version told no start time.
        return pid if b"gateway" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (OSError, ValueError):
        return None


def main(count: int) -> None:
    """Runs a supervisor from the `PENSTOCK_*` settings until it is told to stop.

    Raises:
        PenstockError: If it cannot serve.
    """
    configure("gateway")
    asyncio.run(Workers(GatewaySettings.load(), count).run())
