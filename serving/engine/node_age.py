"""For how long this machine has been a node of Ray: a start that had to wait for it tells so.

By the age of the raylet that this process descends from, as /proc tells it; Ray's own answer would
cost a call of the cluster's head at each start of a host.
"""

import os
import time
from pathlib import Path

RAYLET = "raylet"
GENERATIONS = 8
"""How far up the raylet is looked for; it is a worker's parent, unless a wrapper stands between."""


def node_age_s(
    pid: int | None = None, now_s: float | None = None, proc: Path = Path("/proc")
) -> float | None:
    """Seconds since the raylet above a process started; None where there is none, or no telling.

    Args:
        pid: Of the process; by default of this one.
        now_s: Seconds since the machine's boot, which /proc counts from.
        proc: Where the processes stand.
    """
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME) if now_s is None else now_s
    ancestor = os.getpid() if pid is None else pid
    for _ in range(GENERATIONS):
        try:
            text = (proc / str(ancestor) / "stat").read_text("utf-8", "replace")
        except OSError:
            return None
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()  # from the third on: state, parent, ...; the 22nd is the start
        if name == RAYLET:
            age_s = now_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")
            return age_s if age_s >= 0 else None
        ancestor = int(fields[1])
    return None
