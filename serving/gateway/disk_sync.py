"""Asks the kernel to put files on the disk, and is told when they are there, off the event loop.

By Linux' native asynchronous I/O where the kernel lets us: it syncs in a thread of its own, and
wakes the loop by an eventfd where somebody waits. A thread of ours (the other way, for sandboxes
without these calls) has to get the interpreter's lock before it can begin and again when it is
done: half the CPU time and half the wait of a commit, measured beside a busy loop.
"""

import asyncio
import contextlib
import ctypes
import os
import platform
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

Done = Callable[[OSError | None], None]
"""Told on the event loop that all files are on the disk, or what went wrong; never within the call
that began it."""


class DiskSync(Protocol):
    """One commit at a time."""

    def sync(self, fds: Sequence[int], done: Done) -> None:
        """Begins to make the files' data durable; they may be closed meanwhile."""
        ...

    def poll(self) -> None:
        """Tells now if it is done; without `watch` nobody else may."""
        ...

    def watch(self) -> None:
        """Tells as soon as it is done: a wake of the loop, which costs more than the commit."""
        ...

    def close(self) -> None:
        """Waits for what was begun; nobody is told any more."""
        ...


class ThreadSync:
    """By `fdatasync` in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    def sync(self, fds: Sequence[int], done: Done) -> None:
        """As DiskSync."""
        own = [os.dup(fd) for fd in fds]

        def work() -> None:
            failed: OSError | None = None
            try:
                for fd in own:
                    os.fdatasync(fd)
            except OSError as exc:
                failed = exc
            finally:
                for fd in own:
                    os.close(fd)
            self._loop.call_soon_threadsafe(done, failed)

        self._thread.submit(work)

    def poll(self) -> None:
        """As DiskSync: it is told in any case."""

    def watch(self) -> None:
        """As DiskSync: it is told in any case."""

    def close(self) -> None:
        """As DiskSync."""
        self._thread.shutdown(wait=True)


FDSYNC = 3  # IOCB_CMD_FDSYNC of linux/aio_abi.h
HAS_EVENTFD = 1  # IOCB_FLAG_RESFD
MOST_FILES = 64

REQUEST = struct.Struct("<QIIHhIQQqQII")
"""struct iocb: data, key, rw_flags, opcode, reqprio, fildes, buf, nbytes, offset, reserved2, flags,
resfd."""

EVENT = struct.Struct("<QQqq")
"""struct io_event: data, obj, res, res2."""

CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""Numbers of io_setup, io_destroy, io_getevents, io_submit."""


class KernelSync:
    """By the kernel's asynchronous I/O.

    Raises:
        OSError: If the kernel does not let us.
    """

    def __init__(self) -> None:
        calls = CALLS.get(platform.machine())
        if calls is None:
            raise OSError(0, "the numbers of its system calls are not known here")
        self._loop = asyncio.get_running_loop()
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        io_setup, self._io_destroy, self._io_getevents, self._io_submit = map(ctypes.c_long, calls)
        self._context = ctypes.c_ulong(0)
        self._call(io_setup, ctypes.c_uint(MOST_FILES), ctypes.byref(self._context))
        self._requests = ctypes.create_string_buffer(REQUEST.size * MOST_FILES)
        begin = ctypes.addressof(self._requests)
        places = [begin + i * REQUEST.size for i in range(MOST_FILES)]
        self._pointers = (ctypes.c_void_p * MOST_FILES)(*places)
        self._events = ctypes.create_string_buffer(EVENT.size * MOST_FILES)
        self._pending = 0
        self._failed: OSError | None = None
        self._done: Done | None = None
        self._watching = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._prove()
        except OSError:
            self.close()
            raise

    def sync(self, fds: Sequence[int], done: Done) -> None:
        """As DiskSync; of more than MOST_FILES, the oldest are synced at once."""
        for fd in fds[:-MOST_FILES]:
            os.fdatasync(fd)
        fds = fds[-MOST_FILES:]
        for place, fd in enumerate(fds):
            self._request(place, fd)
        self._done, self._failed, self._pending = done, None, len(fds)
        begun = 0
        try:
            while begun < len(fds):
                begun += self._call(
                    self._io_submit, self._context, ctypes.c_long(len(fds) - begun),
                    ctypes.byref(self._pointers, begun * ctypes.sizeof(ctypes.c_void_p)),
                )  # fmt: skip
        except OSError as exc:
            self._failed, self._pending = exc, begun
        if not self._pending:
            self._loop.call_soon(self._finish)

    def poll(self) -> None:
        """As DiskSync."""
        if not self._pending:
            return
        number = self._call(
            self._io_getevents, self._context, ctypes.c_long(0), ctypes.c_long(MOST_FILES),
            self._events, None,
        )  # fmt: skip
        for place in range(number):
            result = EVENT.unpack_from(self._events, place * EVENT.size)[2]
            if result < 0:
                self._failed = OSError(-result, os.strerror(-result))
        self._pending -= number
        if number and not self._pending:
            self._unwatch()
            self._finish()

    def watch(self) -> None:
        """As DiskSync."""
        if self._pending and not self._watching:
            self._watching = True
            self._loop.add_reader(self._wake, self._take)

    def close(self) -> None:
        """As DiskSync."""
        self._unwatch()
        self._done = None
        self._call(self._io_destroy, self._context)
        os.close(self._wake)

    def _prove(self) -> None:
        """Syncs a file in memory: kernels before 4.18 and some sandboxes have the calls, but do not
        sync by them."""
        fd = os.memfd_create("proof", os.MFD_CLOEXEC)
        try:
            self._request(0, fd)
            self._call(self._io_submit, self._context, ctypes.c_long(1), self._pointers)
            one = ctypes.c_long(1)
            self._call(self._io_getevents, self._context, one, one, self._events, None)
        finally:
            os.close(fd)
        result = EVENT.unpack_from(self._events)[2]
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        os.eventfd_read(self._wake)

    def _request(self, place: int, fd: int) -> None:
        REQUEST.pack_into(
            self._requests, place * REQUEST.size,
            0, 0, 0, FDSYNC, 0, fd, 0, 0, 0, 0, HAS_EVENTFD, self._wake,
        )  # fmt: skip

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        self.poll()

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._wake)

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._failed)

    def _call(self, *arguments: object) -> int:
        result = int(self._syscall(*arguments))
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def make_disk_sync() -> DiskSync:
    """The best that this machine has; needs a running loop."""
    try:
        return KernelSync()
    except (OSError, AttributeError):  # forbidden by a sandbox, or another libc
        return ThreadSync()
