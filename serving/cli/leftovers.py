"""Finds and ends what a platform left behind; only processes that are surely its own.

A process belongs to a platform if it bears the platform's random mark in its environment, or if
it is in the session of one of its parts (Ray's workers overwrite their environment with a title).
"""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from signal import SIGKILL, SIGTERM, Signals

import psutil

from serving.cli.platform import MARK_VARIABLE, PlatformState
from serving.processes import ProcessRef

POLL_S = 0.05


def find(state: PlatformState) -> list[ProcessRef]:
    """The processes of a platform that still live, its supervisor and the caller left out."""
    sessions = {part.pid for part in state.parts.values() if _session_is_ours(part)}
    marked = find_marked(state.mark)
    in_session = [ref for pid in psutil.pids() if (ref := _in_session(pid, sessions))]
    spared = {os.getpid(), state.pid}
    return [ref for ref in {*marked, *in_session} if ref.pid not in spared]


def find_marked(mark: str) -> list[ProcessRef]:
    """The processes that bear a platform's mark."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK_VARIABLE) == mark and (ref := ProcessRef.of(process.pid)):
                found.append(ref)
    return found


def end_session(leader: ProcessRef) -> None:
    """Kills whoever is left in the session of a part that died, at once."""
    if _session_is_ours(leader):
        pids = psutil.pids()
        signal_all([ref for pid in pids if (ref := _in_session(pid, {leader.pid}))], SIGKILL)


def end(state: PlatformState, grace_s: float = 5.0) -> int:
    """Ends all processes that a platform left, first politely; returns how many there were.

    Those that appear meanwhile (a worker that was just being forked) are ended too.
    """
    first = left = find(state)
    signal_all(left, SIGTERM)
    deadline = time.monotonic() + grace_s
    while (left := find(state)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    deadline = time.monotonic() + grace_s
    while left and time.monotonic() < deadline:
        signal_all(left, SIGKILL)
        time.sleep(POLL_S)
        left = find(state)
    return len(first)


def signal_all(processes: Iterable[ProcessRef], signal: Signals) -> None:
    """Signals each process that still is the one that was meant."""
    for process in processes:
        if process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal)


def wait_gone(process: ProcessRef, timeout_s: float) -> bool:
    """Waits for the end of a process that need not be a child; False if it outlives the wait."""
    deadline = time.monotonic() + timeout_s
    while process.is_alive():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _session_is_ours(leader: ProcessRef) -> bool:
    """A session keeps its number until its last process is gone, unless another leads it now."""
    now = ProcessRef.of(leader.pid)
    return now is None or now == leader


def _in_session(pid: int, sessions: set[int]) -> ProcessRef | None:
    with suppress(ProcessLookupError, PermissionError):
        if os.getsid(pid) in sessions:
            return ProcessRef.of(pid)
    return None
