"""Supervised child processes: started, watched, restarted when they die, stopped in order.

Nothing here knows what a part is for. Parts are started from the main thread only: a child's
parent-death signal fires when the *thread* that started it ends.
"""

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from models.errors import UnavailableError
from serving.cli import leftovers
from serving.processes import ProcessRef

LONGEST_LOG_BYTES = 32 << 20
PATIENCE = 3
"""A part that died this often without ever having been ready will not come up."""
PROBE_INTERVAL_S = 0.1
ALIVE_INTERVAL_S = 10.0
SILENCES = 6
"""A ready part that answers none of so many questions in a row is killed, and so started again: the
chart's probes ask as often."""

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


class PartError(UnavailableError):
    """A part of the platform does not start."""

    code = "part_failed"


@dataclass(frozen=True, slots=True)
class PartSpec:
    """What a part is and how to treat it."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    """Its current folder, and thereby on its import path and on that of Ray's workers: our package
    names are generic, so it must be none in which an operator keeps things called `models`."""
    log_path: Path
    is_ready: Callable[[], bool]
    """Asked until it is true, after each start; must return within a second or so."""
    death_signal: Signals = SIGKILL
    """What the kernel sends the part when the supervisor dies without stopping it."""
    stop_timeout_s: float = 10.0
    """Seconds that the part gets to end after SIGTERM."""
    before_start: Callable[[], None] = lambda: None
    """Run before each start, as to remove what an earlier one left."""
    is_alive: Callable[[], bool] = lambda: True
    """Asked each ALIVE_INTERVAL_S once the part is ready; must return within seconds."""


class Change(StrEnum):
    """What happened to a part."""

    READY = "ready"
    DIED = "died"
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class PartEvent:
    """Something that the operator should see."""

    part: str
    change: Change
    after_s: float
    """Since the part's last start."""
    message: str = ""


def restart_delay_s(deaths: int) -> float:
    """Wait before the next start after so many deaths in a row: none, then 0.5 s up to 8 s."""
    return 0.0 if deaths <= 1 else min(0.25 * 2.0 ** (deaths - 1), 8.0)


@dataclass(slots=True)
class Part:
    """One supervised process. Times are monotonic seconds and come from the caller."""

    spec: PartSpec
    process: subprocess.Popen[bytes] | None = None
    ref: ProcessRef | None = None
    ready: bool = False
    was_ready: bool = False
    deaths: int = 0
    started_s: float = 0.0
    start_at_s: float = 0.0
    probed_s: float = 0.0
    silences: int = 0
    log_offset: int | None = None
    stopping: bool = False

    def start(self, now_s: float) -> None:
        """Starts the process in a session of its own, its output appended to its log."""
        self.spec.before_start()
        trim_log(self.spec.log_path)
        if self.log_offset is None:
            self.log_offset = log_size(self.spec.log_path)
        signal, parent = self.spec.death_signal, os.getpid()

        def follow_the_supervisor() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(signal))
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

        with self.spec.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.spec.command,
                cwd=self.spec.folder,
                env=dict(self.spec.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=follow_the_supervisor,
            )
        self.ref = ProcessRef.of(self.process.pid)
        self.ready, self.silences = False, 0
        self.started_s = self.probed_s = now_s

    def tick(self, now_s: float) -> PartEvent | None:
        """Looks after the part once.

        Raises:
            PartError: If it dies again and again and never was ready.
        """
        if self.stopping:
            return None
        if self.process is None:
            if now_s < self.start_at_s:
                return None
            self.start(now_s)
            return PartEvent(self.spec.name, Change.RESTARTED, 0.0)
        code = self.process.poll()
        if code is not None:
            return self._died(code, now_s)
        if now_s - self.probed_s < (ALIVE_INTERVAL_S if self.ready else PROBE_INTERVAL_S):
            return None
        self.probed_s = now_s
        if self.ready:
            self._listen()
        elif self.spec.is_ready():
            self.ready = self.was_ready = True
            self.deaths = 0
            return PartEvent(self.spec.name, Change.READY, now_s - self.started_s)
        return None

    def said(self) -> list[str]:
        """The last lines that it wrote since its first start."""
        return last_lines(self.spec.log_path, after=self.log_offset or 0)

    def stop(self) -> None:
        """Asks the process to end; it is not restarted any more."""
        self.stopping = True
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(SIGTERM)

    def wait(self) -> None:
        """Waits until the process and its whole session are gone; kills what takes too long."""
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(self.spec.stop_timeout_s)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        if self.ref is not None:
            leftovers.end_session(self.ref)

    def _listen(self) -> None:
        """Kills a part that runs and does nothing any more; that it died is seen next."""
        self.silences = 0 if self.spec.is_alive() else self.silences + 1
        if self.silences >= SILENCES and self.process is not None:
            self.process.kill()

    def _died(self, code: int, now_s: float) -> PartEvent:
        if self.ref is not None:
            leftovers.end_session(self.ref)
        self.process = self.ref = None
        self.deaths += 1
        self.ready = False
        self.start_at_s = now_s + restart_delay_s(self.deaths)
        how = f"by signal {Signals(-code).name}" if code < 0 else f"with code {code}"
        if self.silences >= SILENCES:
            how += f", as it had left {self.silences} questions for its health unanswered"
        if not self.was_ready and self.deaths >= PATIENCE:
            raise PartError(
                f"the {self.spec.name} does not start: it ended {how}",
                hint=f"see {self.spec.log_path}",
            )
        return PartEvent(self.spec.name, Change.DIED, now_s - self.started_s, f"ended {how}")


@dataclass(slots=True)
class Supervisor:
    """All parts of a platform."""

    on_event: Callable[[PartEvent], None]
    parts: dict[str, Part] = field(default_factory=dict)

    def start(self, *specs: PartSpec) -> None:
        """Adds parts and starts them."""
        for spec in specs:
            part = self.parts[spec.name] = Part(spec)
            part.start(time.monotonic())

    def tick(self) -> None:
        """Looks after all parts once.

        Raises:
            PartError: If one of them does not start.
        """
        for part in self.parts.values():
            if event := part.tick(time.monotonic()):
                self.on_event(event)

    def are_ready(self, names: Iterable[str] | None = None) -> bool:
        """Whether the named parts (by default all) are ready."""
        wanted = self.parts if names is None else names
        return all(name in self.parts and self.parts[name].ready for name in wanted)

    def refs(self) -> dict[str, ProcessRef]:
        """The processes that run now."""
        return {name: part.ref for name, part in self.parts.items() if part.ref is not None}

    def stop(self, order: Sequence[Sequence[str]]) -> None:
        """Stops all parts, group after group; within a group all at once."""
        for part in self.parts.values():
            part.stopping = True
        for group in order:
            members = [self.parts[name] for name in group if name in self.parts]
            for part in members:
                part.stop()
            for part in members:
                part.wait()


def log_size(path: Path) -> int:
    """Length of a log in bytes; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def trim_log(path: Path, longest_bytes: int = LONGEST_LOG_BYTES) -> None:
    """Moves a log that grew too long aside (`.1`) and empties it; writers may keep it open."""
    if log_size(path) > longest_bytes:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)


def last_lines(
    path: Path, count: int = 15, longest_bytes: int = 64 << 10, after: int = 0
) -> list[str]:
    """The last lines of a log, as far as they lie in its last `longest_bytes` and past `after`."""
    size = log_size(path)
    if size <= after:
        return []
    with path.open("rb") as stream:
        stream.seek(max(after, size - longest_bytes))
        return stream.read().decode(errors="replace").splitlines()[-count:]
