"""The engines that stand: one record each, from the fork until its process group is gone."""

import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

from serving.engine import shared_memory
from serving.engine.causes import Cause, of_exit
from serving.engine.launch_protocol import Died, Exited

LOG_TAIL_BYTES = 64 << 10

VMSTAT = Path("/proc/vmstat")


def count_oom_kills() -> int | None:
    """Processes that the kernel has killed for want of memory, on this machine; None if untold."""
    try:
        lines = VMSTAT.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


@dataclass(slots=True)
class Engine:
    """One engine, as its launcher knows it."""

    engine_id: str
    pid: int
    """First process, and id of the process group."""
    events_fd: int
    """Read end of the engine's events."""
    lifeline_fd: int
    """Write end of the pipe that all processes of the engine watch."""
    log_path: Path
    scratch_dir: Path
    """The engine's temporary files: sockets, rendezvous files, what a killed one leaves there."""
    gpus: tuple[str, ...]
    pending: bytes = b""
    """Start of an event that has not come in whole."""
    died: Died | None = None
    """Why it ends, in its own words."""
    ended_since: str | None = None
    """Why it was told to end."""
    kill_at_s: float | None = None
    """When SIGKILL follows SIGTERM, in monotonic seconds; None while nobody wants it to end."""
    status: int | None = None
    """Wait status of the first process, once it is reaped."""
    oom_kills_before: int | None = field(default_factory=count_oom_kills)

    def signal_group(self, number: signal.Signals) -> None:
        """Sends a signal to all processes of the engine."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def ask_to_end(self) -> None:
        """Sends SIGTERM to the first process alone: it ends its own children in good order."""
        if self.status is None:
            os.kill(self.pid, signal.SIGTERM)

    def is_gone(self) -> bool:
        """Whether no process of the group is left, not even one that waits to be reaped."""
        if self.status is None:
            return False
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def bury(self) -> None:
        """Gives back what the launcher keeps for the engine."""
        os.close(self.events_fd)
        os.close(self.lifeline_fd)
        shared_memory.remove(self.scratch_dir)
        shutil.rmtree(self.scratch_dir, ignore_errors=True)

    def exited(self) -> Exited:
        """How it ended, for its host; to be called once it is gone."""
        code = number = None
        if self.status is not None and os.WIFEXITED(self.status):
            code = os.WEXITSTATUS(self.status)
        elif self.status is not None:
            number = signal.Signals(os.WTERMSIG(self.status)).name
        if self.ended_since is not None:
            cause = Cause(f"the engine was told to end: {self.ended_since}")
        elif self.died is not None:
            cause = Cause(self.died.cause, self.died.hint)
        else:
            cause = of_exit(code, number, self._log_tail())
        return Exited(
            code=code, signal=number, cause=cause.sentence, hint=cause.hint,
            killed=number == "SIGKILL" and self._was_killed_by_somebody(),
        )  # fmt: skip

    def _was_killed_by_somebody(self) -> bool:
        """Nobody here wanted it to end, and the kernel killed nobody for want of memory."""
        if self.ended_since is not None or self.died is not None or self.oom_kills_before is None:
            return False
        return count_oom_kills() == self.oom_kills_before

    def _log_tail(self) -> str:
        try:
            with self.log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - LOG_TAIL_BYTES))
                return log.read().decode("utf-8", "replace")
        except OSError:
            return ""
