"""Whether processes of a test still live.

A zombie does not: who adopts an orphan may reap it late, or never, as a first process of a
container that waits for nobody. So neither a pid that exists nor a wait for it to go says enough.
"""

import time
from collections.abc import Iterable

import psutil


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs, and is not only waiting to be reaped."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_is_alive(pid: int) -> bool:
    """The same of a pid."""
    try:
        return is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def still_alive(processes: Iterable[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Those that live on after `within_s`; returns as soon as there are none."""
    deadline_s = time.monotonic() + within_s
    left = list(processes)
    while (left := [one for one in left if is_alive(one)]) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return left
