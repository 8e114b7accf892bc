"""Serves hosts at the launcher's socket: starts engines, holds leases, reaps what dies.

It owns the engines' processes: their birth, their reaping, and that none is left over. What an
engine serves, and for whom, is the host's business; which engine it is, `launcher` says.

Single-threaded on purpose, since a fork copies only the thread that calls it: a `selectors` loop
instead of asyncio, whose resolver and executors start threads.
"""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from functools import partial

from models.errors import BadRequestError, UnavailableError
from serving import logs
from serving.engine import child, lifeline
from serving.engine.birth import give_birth
from serving.engine.caller import Caller
from serving.engine.launch_protocol import (
    Died,
    Forked,
    Hello,
    HelloRequest,
    Reached,
    Refused,
    SpawnRequest,
    decode_event,
    decode_request,
)
from serving.engine.socket_claim import Claim
from serving.engine.standby import Standby, StandbyPool
from serving.engine.standing import Engine
from serving.engine.ways import Way, check_memory, choose_way, free_memory_gib
from serving.protocol import StartPhase

GRACE_S = 2.0
"""Time between SIGTERM and SIGKILL."""

_log = logs.get_logger("penstock.launcher")


class LaunchServer:
    """Serves hosts at a Unix socket until it is told to stop.

    Args:
        claim: The socket's path, which this process alone serves.
        serve: Runs one engine in a forked child.
        build: What `hello` tells of the engines' build.
        fork_obstacle: Why no engine can be forked now, or None.
        standbys: Processes that wait to become engines where a fork cannot serve.
    """

    def __init__(
        self,
        claim: Claim,
        serve: child.Serve,
        build: str,
        fork_obstacle: Callable[[], str | None] = lambda: None,
        standbys: StandbyPool | None = None,
    ) -> None:
        self._standbys = standbys or StandbyPool(0)
        self._claim = claim
        self._serve = serve
        self._build = build
        self._fork_obstacle = fork_obstacle
        self._selector = selectors.DefaultSelector()
        self._callers: set[Caller] = set()
        self._engines: dict[int, Engine] = {}  # by pid
        self._stopping = False
        self._wakeup, self._wakeup_end = socket.socketpair()

    def run(self, on_listening: Callable[[], None] = lambda: None) -> None:
        """Serves until SIGTERM or SIGINT; then ends all engines and returns."""
        lifeline.adopt_orphans()
        for end in (self._wakeup, self._wakeup_end):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_end.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._drain_wakeup)
        listener = self._claim.listen()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))
        on_listening()
        self._standbys.fill()
        while not self._stopping or self._engines:
            for key, _ in self._selector.select(self._timeout_s()):
                if self._selector.get_map().get(key.fd) is key:  # not closed by one before it
                    key.data()
            self._reap()
            self._kill_overdue()
        self._standbys.close()

    # --- hosts ----------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # the caller has left again
            return
        connection.setblocking(False)
        caller = Caller(connection)
        self._callers.add(caller)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._read, caller))

    def _read(self, caller: Caller) -> None:
        if (data := caller.read()) is None:
            return
        if not data:
            self._selector.unregister(caller.connection)
            if caller.engine is None:
                self._forget(caller)
            else:  # the host may have shut down its side only, to be told of the end
                self._end(caller.engine, "the host gave it up")
        elif caller.waiting is None and caller.engine is None:
            self._handle(caller, data)

    def _handle(self, caller: Caller, data: bytes) -> None:
        try:
            if (line := caller.line(data)) is None:
                return
            request = decode_request(line)
        except BadRequestError as exc:
            self._refuse(caller, str(exc))
            return
        if isinstance(request, HelloRequest):
            running = tuple(engine.engine_id for engine in self._engines.values())
            hello = Hello(
                pid=os.getpid(),
                build=self._build,
                engines=running,
                standbys=self._standbys.warm(),
            )
            caller.tell(hello)
            self._close(caller)
        elif self._held(request.gpus):
            caller.waiting = request
        else:
            self._spawn(caller, request)

    def _refuse(self, caller: Caller, reason: str, hint: str | None = None) -> None:
        _log.warning("refused", reason=reason)
        caller.tell(Refused(reason=reason, hint=hint))
        self._close(caller)

    def _close(self, caller: Caller) -> None:
        if caller.connection.fileno() in self._selector.get_map():
            self._selector.unregister(caller.connection)
        self._forget(caller)

    def _forget(self, caller: Caller) -> None:
        caller.connection.close()
        self._callers.discard(caller)

    # --- engines --------------------------------------------------------------------------------

    def _held(self, gpus: tuple[str, ...]) -> bool:
        return any(set(gpus) & set(engine.gpus) for engine in self._engines.values())

    def _spawn(self, caller: Caller, request: SpawnRequest) -> None:
        if self._stopping:
            self._refuse(caller, "the launcher is stopping")
            return
        try:
            check_memory(request, free_memory_gib())
            standby = self._standbys.take() if request.mode in ("auto", "standby") else None
            way = choose_way(request, self._fork_obstacle(), has_standby=standby is not None)
            if way != "standby" and standby is not None:
                self._standbys.give_back(standby)
            self._start(caller, request, way, standby if way == "standby" else None)
        except UnavailableError as exc:
            self._refuse(caller, str(exc), exc.hint)
        except OSError as exc:
            self._refuse(caller, f"the engine cannot be started: {exc}")

    def _start(
        self, caller: Caller, request: SpawnRequest, way: Way, standby: Standby | None
    ) -> None:
        serve = self._serve if way == "fork" else None
        newborn = give_birth(request, self._claim.scratch_dir, serve, self._abandon, standby)
        engine, port = newborn.engine, newborn.port
        self._engines[engine.pid] = engine
        caller.engine, caller.waiting = engine, None
        self._selector.register(
            engine.events_fd, selectors.EVENT_READ, partial(self._hear, caller, engine)
        )
        _log.info("forked", engine_id=engine.engine_id, pid=engine.pid, port=port, mode=way)
        caller.tell(Forked(pid=engine.pid, port=port, mode=way, at=time.time()))

    def _abandon(self) -> None:
        """Closes, in a child, all that is the launcher's; other engines' lifelines above all."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._claim.abandon()
        self._standbys.abandon()
        for end in (self._wakeup, self._wakeup_end):
            end.close()
        for caller in self._callers:
            caller.connection.close()
        for engine in self._engines.values():
            os.close(engine.lifeline_fd)
            os.close(engine.events_fd)

    def _hear(self, caller: Caller, engine: Engine) -> None:
        try:
            data = os.read(engine.events_fd, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(engine.events_fd)
            return
        *lines, engine.pending = (engine.pending + data).split(b"\n")
        for line in lines:
            event = decode_event(line)
            if isinstance(event, Died):
                engine.died = event
            else:
                caller.tell(event)
                if isinstance(event, Reached) and event.phase is StartPhase.PROBED:
                    self._standbys.fill()  # only now: its imports would slow the start down

    def _end(self, engine: Engine, reason: str) -> None:
        if engine.kill_at_s is None:
            _log.info("ending", engine_id=engine.engine_id, pid=engine.pid, reason=reason)
            engine.ended_since = reason
            engine.kill_at_s = time.monotonic() + GRACE_S
            engine.ask_to_end()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self._engines:
                self._engines[pid].status = status
                self._engines[pid].signal_group(signal.SIGKILL)
        for engine in [engine for engine in self._engines.values() if engine.is_gone()]:
            self._bury(engine)

    def _bury(self, engine: Engine) -> None:
        caller = next(caller for caller in self._callers if caller.engine is engine)
        if engine.events_fd in self._selector.get_map():
            self._hear(caller, engine)
        if engine.events_fd in self._selector.get_map():
            self._selector.unregister(engine.events_fd)
        del self._engines[engine.pid]
        engine.bury()
        exited = engine.exited()
        _log.info("exited", engine_id=engine.engine_id, cause=exited.cause)
        caller.tell(exited)
        self._close(caller)
        if not self._stopping:
            self._standbys.fill()
        for waiting in list(self._callers):
            if waiting.waiting is not None and not self._held(waiting.waiting.gpus):
                self._spawn(waiting, waiting.waiting)

    def _kill_overdue(self) -> None:
        now_s = time.monotonic()
        for engine in self._engines.values():
            if engine.kill_at_s is not None and engine.kill_at_s <= now_s:
                engine.signal_group(signal.SIGKILL)

    def _timeout_s(self) -> float | None:
        """Until the next SIGKILL is due; short while a dead engine's group is not yet empty."""
        if any(engine.status is not None for engine in self._engines.values()):
            return 0.05
        due = [engine.kill_at_s for engine in self._engines.values() if engine.kill_at_s]
        return max(0.05, min(due) - time.monotonic()) if due else None

    def _drain_wakeup(self) -> None:
        self._wakeup.recv(1 << 12)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for engine in list(self._engines.values()):
            self._end(engine, "the launcher stops")
