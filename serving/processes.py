"""Which process a pid means: numbers are given out again, moments of birth are not."""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class ProcessRef(BaseModel):
    """A process that cannot be confused with a later one of the same pid."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: int
    """Start time in clock ticks since the machine's boot, as /proc tells it."""

    @classmethod
    def of(cls, pid: int) -> "ProcessRef | None":
        """The process that has this pid now, or None if there is none (or only a zombie)."""
        started = start_time(pid)
        return None if started is None else cls(pid=pid, started=started)

    @classmethod
    def of_this(cls) -> "ProcessRef":
        """The process that asks."""
        return cls(pid=os.getpid(), started=start_time(os.getpid()) or 0)

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, so fields are counted from its end.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
