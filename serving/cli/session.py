"""One run of a platform on this machine: start, watch, stop. Runs in the supervisor's main thread.

Order of the start, everything beside everything else that it does not need: the launcher's imports
and Ray's head take the longest and come first, then the keys, then controller and gateway, which
use the keys; at last the built-in model, which needs all of them.
"""

import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from models.errors import PenstockError, UnavailableError
from serving.cli import blueprint, checks, guide, leftovers, ports
from serving.cli.blueprint import Blueprint
from serving.cli.parts import PartError, PartEvent, Supervisor, trim_log
from serving.cli.platform import (
    Layout,
    Phase,
    PlatformState,
    only_one,
    read_state,
    secret,
    write_state,
)
from serving.processes import ProcessRef

TICK_S = 0.05
TRIM_INTERVAL_S = 30.0
START_TIMEOUT_S = 180.0


class StoppedError(Exception):
    """The operator asked for the end during the start."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asked for."""

    port: int
    """Port of the gateway; 0 for any free one."""
    hosts: int
    deploy: bool
    drain_timeout_s: float
    admin_key: str | None
    api_key: str | None
    builds: Mapping[str, Path] = field(default_factory=dict)
    """Python interpreters of further engine builds, by name."""
    pool: str = "cpu"
    """Shape of the hosts: `cpu`, `h200x1`, ..."""


@dataclass(frozen=True, slots=True)
class Started:
    """What the summary tells."""

    url: str
    took_s: float
    new_admin_key: str | None
    new_api_key: str | None
    model: str | None
    """The built-in model, where it is deployed."""
    trouble: PenstockError | None
    """Why the built-in model does not answer."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Where a session's progress goes."""

    line: Callable[[str], None]
    event: Callable[[PartEvent], None]
    log: Callable[[str, list[str]], None]
    """The end of the log of a part that does not start."""
    started: Callable[[Started], None]


@dataclass(slots=True)
class Session:
    """A platform while it runs."""

    layout: Layout
    options: Options
    report: Reporter
    supervisor: Supervisor = field(init=False)
    began_s: float = field(default_factory=time.monotonic)
    stop_asked: int = 0
    state: PlatformState | None = None

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.report.event)

    def run(self) -> None:
        """Serves until it is asked to stop; leaves no process behind, whatever happens.

        Raises:
            PenstockError: If the platform cannot be started.
        """
        checks.require_memory()
        self.layout.make()
        with only_one(self.layout), self._signals():
            try:
                self._clear_leftovers()
                self._start(self._plan())
                self._watch()
            except StoppedError:
                pass
            except PartError:
                self._show_logs()
                raise
            finally:
                self._stop()
                shutil.rmtree(self.layout.runtime_dir, ignore_errors=True)

    # --- start ----------------------------------------------------------------------------------

    def _clear_leftovers(self) -> None:
        """Ends what a supervisor that was killed could not end itself."""
        if state := read_state(self.layout):
            if ended := leftovers.end(state):
                self.report.line(f"ended {ended} processes that an earlier run had left")
            shutil.rmtree(state.runtime_dir, ignore_errors=True)
            self.layout.make()

    def _plan(self) -> Blueprint:
        if self.options.port:
            ports.require_free(self.options.port)
        chosen = ports.pick("controller", "dashboard", "ray-metrics", "ray-client", "gateway")
        if self.options.port:
            chosen["gateway"] = self.options.port
        return blueprint.of_caller(
            self.layout,
            chosen,
            secrets.token_hex(16),
            secret(self.layout.internal_token_file),
            self.options.hosts,
            self.options.builds,
            self.options.pool,
        )

    def _start(self, plan: Blueprint) -> None:
        self._write_state(Phase.STARTING, plan)
        self.supervisor.start(*plan.launchers(), plan.ray())
        self._write_state(Phase.STARTING, plan)
        admin_key, api_key = self._ensure_keys(plan)
        self.supervisor.start(plan.controller(), plan.gateway(self.options.drain_timeout_s))
        self._write_state(Phase.STARTING, plan)
        self._until(self.supervisor.are_ready, START_TIMEOUT_S)
        model, trouble = None, None
        if self.options.deploy:
            known_key = admin_key or self.options.admin_key
            model, trouble = guide.bring_up(plan, known_key, self._until, self.report.line)
        self._write_state(Phase.READY, plan)
        self.report.started(
            Started(
                url=plan.url,
                took_s=time.monotonic() - self.began_s,
                new_admin_key=admin_key,
                new_api_key=api_key,
                model=model,
                trouble=trouble,
            )
        )

    def _ensure_keys(self, plan: Blueprint) -> tuple[str | None, str | None]:
        # Imported late: SQL's libraries load while Ray and the launcher start.
        from serving.controller.keys import ensure_keys

        new = ensure_keys(plan.layout.database_url, self.options.admin_key, self.options.api_key)
        return new.admin_key, new.api_key

    def _until(
        self,
        done: Callable[[], bool],
        timeout_s: float,
        what: str = "not all parts are ready",
        interval_s: float = TICK_S,
    ) -> None:
        """Looks after the parts until something is true.

        Raises:
            StoppedError: If the operator asked for the end.
            PartError: If a part does not start.
            UnavailableError: If it is not true in time.
        """
        deadline_s = time.monotonic() + timeout_s
        asked_s = -interval_s
        while True:
            if self.stop_asked:
                raise StoppedError
            self.supervisor.tick()
            now_s = time.monotonic()
            if now_s - asked_s >= interval_s:
                asked_s = now_s
                if done():
                    return
            if now_s > deadline_s:
                raise UnavailableError(
                    f"{what} after {timeout_s:.0f} s", hint=f"see {self.layout.logs_dir}"
                )
            time.sleep(TICK_S)

    # --- watch and stop -------------------------------------------------------------------------

    def _watch(self) -> None:
        next_trim_s = time.monotonic() + TRIM_INTERVAL_S
        while not self.stop_asked:
            self.supervisor.tick()
            self._refresh_state()
            if time.monotonic() >= next_trim_s:
                next_trim_s += TRIM_INTERVAL_S
                for part in self.supervisor.parts.values():
                    trim_log(part.spec.log_path)
            time.sleep(TICK_S)

    def _stop(self) -> None:
        if self.state is None:
            return
        self.report.line("stopping: streams may end, then all parts")
        self.state = self.state.model_copy(update={"phase": Phase.STOPPING})
        write_state(self.layout, self.state)
        # The gateway drains while all that it needs still runs.
        others = [name for name in self.supervisor.parts if name != "gateway"]
        self.supervisor.stop((("gateway",), others))
        leftovers.end(self.state)
        self.layout.state_file.unlink(missing_ok=True)
        self.report.line("stopped")

    def _show_logs(self) -> None:
        for name, part in self.supervisor.parts.items():
            if not part.was_ready and part.deaths:
                self.report.log(name, part.said())

    # --- state ----------------------------------------------------------------------------------

    def _write_state(self, phase: Phase, plan: Blueprint) -> None:
        own = ProcessRef.of_this()
        self.state = PlatformState(
            pid=own.pid,
            started=own.started,
            phase=phase,
            url=plan.url,
            mark=plan.mark,
            runtime_dir=self.layout.runtime_dir,
            ports=dict(plan.ports),
            parts=self.supervisor.refs(),
        )
        write_state(self.layout, self.state)

    def _refresh_state(self) -> None:
        if self.state is not None and self.state.parts != (parts := self.supervisor.refs()):
            self.state = self.state.model_copy(update={"parts": parts})
            write_state(self.layout, self.state)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP ask for the end; asked twice, nothing is waited for."""

        def ask(_number: int, _frame: FrameType | None) -> None:
            self.stop_asked += 1
            if self.stop_asked > 1:
                leftovers.signal_all(self.supervisor.refs().values(), signal.SIGKILL)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before: Mapping[int, signal._HANDLER] = {n: signal.signal(n, ask) for n in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
