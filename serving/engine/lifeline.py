"""Keeps any process of an engine from outliving its launcher: a pipe that all of them watch.

The launcher alone holds the write end. When it closes it or dies, each process that watches the
read end reads the end of file and kills the engine's whole process group, itself included.
"""

import ctypes
import os
import signal
import threading
from functools import partial

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def watch(read_fd: int) -> None:
    """Starts a thread that kills this process's group when the pipe's last write end is gone.

    Every process that is forked from this one watches the pipe too, by itself.
    """
    _start_watcher(read_fd)
    os.register_at_fork(after_in_child=partial(_start_watcher, read_fd))


def _start_watcher(read_fd: int) -> None:
    threading.Thread(
        target=_wait_for_the_end, args=(read_fd,), name="lifeline", daemon=True
    ).start()


def _wait_for_the_end(read_fd: int) -> None:
    while os.read(read_fd, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def die_with_parent() -> None:
    """Has the kernel kill this process when the thread that started it ends.

    For processes that an engine executes anew, which so inherit no pipe. Not to be used where the
    parent starts its children from short-lived threads.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent dies, so that it reaps them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
