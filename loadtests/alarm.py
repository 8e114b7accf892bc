"""Wakes an event loop at an absolute time, some ten times more exactly than `loop.call_at`.

epoll's timeout, which call_at ends in, is rounded up to whole milliseconds, and uvloop's clock
ticks in milliseconds: a ruler for millisecond latencies needs better. Linux' timerfd wakes within
some 50 microseconds. Elsewhere call_at has to do.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC if sys.platform == "linux" else 0
_TFD_TIMER_ABSTIME = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Alarm:
    """Calls `ring` on the running loop at the time that was last set, in `time.monotonic` seconds.

    It rings once for each `set`; a new `set` replaces the one before. Not thread-safe.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._fd: int | None = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_FLAGS)
            if fd < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create failed")
            self._fd = fd
            self._loop.add_reader(fd, self._on_timer)

    def set(self, at_s: float) -> None:
        """Rings at `at_s`, at once where that has passed."""
        if self._fd is None:
            self.clear()
            self._handle = self._loop.call_at(at_s, self._ring)
            return
        # A zero would disarm the timer; any time in the past makes it expire at once.
        nanoseconds = max(1, round(at_s * 1e9))
        self._arm(nanoseconds)

    def clear(self) -> None:
        """Does not ring any more until it is set again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._fd is not None:
            self._arm(0)

    def close(self) -> None:
        """Frees the timer; the alarm is of no use after it."""
        self.clear()
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _arm(self, nanoseconds: int) -> None:
        spec = _TimerSpec(value=_TimeSpec(*divmod(nanoseconds, 1_000_000_000)))
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def _on_timer(self) -> None:
        if self._fd is None:
            return
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # set anew between its expiry and this call
        self._ring()
