"""The engines that stand: one record each, from the fork until its process group is gone."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from serving.engine.launch_protocol import Died

LOG_TAIL_BYTES = 64 << 10


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
    gpus: tuple[str, ...]
    pending: bytes = b""
    """Start of an event that has not come in whole."""
    died: Died | None = None
    kill_at_s: float | None = None
    """When SIGKILL follows SIGTERM, in monotonic seconds; None while nobody wants it to end."""
    status: int | None = None
    """Wait status of the first process, once it is reaped."""

    def signal_group(self, number: signal.Signals) -> None:
        """Sends a signal to all processes of the engine."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def is_gone(self) -> bool:
        """Whether no process of the group is left, not even one that waits to be reaped."""
        if self.status is None:
            return False
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def exit_code(self) -> int | None:
        """Exit code of the first process; None if a signal ended it."""
        if self.status is None or not os.WIFEXITED(self.status):
            return None
        return os.WEXITSTATUS(self.status)

    def exit_signal(self) -> str | None:
        """Name of the signal that ended the first process."""
        if self.status is None or not os.WIFSIGNALED(self.status):
            return None
        return signal.Signals(os.WTERMSIG(self.status)).name

    def log_tail(self) -> str:
        """The end of the engine's log."""
        try:
            with self.log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - LOG_TAIL_BYTES))
                return log.read().decode("utf-8", "replace")
        except OSError:
            return ""
