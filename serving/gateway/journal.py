"""A gateway's journal of usage: appended to on the hot path, made durable by group commit.

    journal/<gateway_id>/lock             held (flock) for as long as the gateway lives
    journal/<gateway_id>/00000001.segment

An append is one `pwrite` into a segment that was allocated beforehand: a few microseconds, it
survives a kill -9 of the process, and it cannot meet a full disk, because each request books its
room before it is let in. What has to survive the machine waits for `durable`: one `fdatasync`,
off the event loop, for all that was appended since the one before.
"""

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.errors import UnavailableError
from serving.gateway.disk_sync import DiskSync, make_disk_sync
from serving.gateway.journal_format import HEADER, encode_header, encode_record
from serving.logs import get_logger

SEGMENT_BYTES = 4 * 2**20

BOOKED_BYTES = 4096
"""Room that one request may take, from its reservation to its settlement, at three attempts."""

COMMIT_INTERVAL_S = 0.002
"""Between the starts of two commits: what comes within it shares one fdatasync."""

LOST_KEPT = 64
"""Failed commits that are remembered for those who have not asked yet."""

LOCK = "lock"
SUFFIX = ".segment"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = get_logger(__name__)


class JournalError(UnavailableError):
    """Usage cannot be recorded now, so that the request is not served."""

    code = "metering_unavailable"


@dataclass(slots=True)
class Segment:
    """One file of the journal."""

    number: int
    path: Path
    fd: int
    end: int  # where the next record goes
    pins: int = 0  # requests that are not settled yet and have a record here
    synced: int = 0  # up to here it is durable
    shipped: int = HEADER.size  # up to here the controller has what is settled


class Journal:
    """Appends records; for one event loop.

    Args:
        folder: This gateway's own folder; made here, and locked.
        segment_bytes: Size of each file.
        disk: Makes what commits, when the first commit is due.
    """

    def __init__(
        self,
        folder: Path,
        segment_bytes: int = SEGMENT_BYTES,
        disk: Callable[[], DiskSync] = make_disk_sync,
    ) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._lock_fd: int | None = None
        self._current: Segment | None = None
        self._spares: deque[Segment] = deque()
        self._old: deque[Segment] = deque()  # full, oldest first
        self._made = 0
        self._booked = 0  # requests that are let in and not settled
        self._appended = 0  # records so far
        self._durable = 0  # of them, those that are on the disk
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._make_disk = disk
        self._disk: DiskSync | None = None
        self._committing = False
        self._again = False  # once more when it is over
        self._lost: deque[range] = deque(maxlen=LOST_KEPT)  # records whose commit failed
        self._next_commit_s = 0.0
        self.settled = asyncio.Event()
        """Set by whoever settles a request: there is something to ship."""

    def open(self) -> None:
        """Makes and locks the folder and the first segment.

        Raises:
            OSError: If that is not possible.
        """
        # Named only when it is locked: no successor may take it for an orphan meanwhile.
        nameless = self.folder.with_name(f".{self.folder.name}")
        nameless.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock_fd = os.open(nameless / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            nameless.rename(self.folder)
        except OSError:
            os.close(lock_fd)
            raise
        self._lock_fd = lock_fd
        with contextlib.suppress(OSError):  # a full disk: requests are refused, or not
            self._spares.append(self._allocate())

    def book(self) -> None:
        """Keeps room for one more request's records.

        Raises:
            JournalError: If there is none: the disk is full.
        """
        needed = (self._booked + 1) * BOOKED_BYTES
        try:
            if self._lock_fd is None:
                self.open()
            while self._room() < needed:
                self._spares.append(self._allocate())
        except OSError as exc:
            raise JournalError(
                "usage cannot be recorded at present", hint=f"{self.folder}: {exc.strerror}"
            ) from exc
        self._booked += 1

    def unbook(self) -> None:
        """Gives the room of a settled request free."""
        self._booked -= 1

    def append(self, payload: bytes) -> tuple[int, Segment]:
        """Writes a record of a request that has booked; returns its number and where it is.

        Raises:
            JournalError: If the disk fails.
        """
        record = encode_record(payload)
        segment = self._current
        if segment is None or segment.end + len(record) > self._segment_bytes:
            segment = self._turn_over()
        try:
            if os.pwrite(segment.fd, record, segment.end) != len(record):
                raise OSError(0, "a short write")
        except OSError as exc:
            log.error("journal_write_failed", path=str(segment.path), reason=str(exc))
            raise JournalError("usage cannot be recorded at present") from exc
        segment.end += len(record)
        self._appended += 1
        return self._appended, segment

    def commit_soon(self) -> None:
        """Starts a commit, now or after the one that runs; what was appended by then is durable
        after it."""
        if self._disk is not None:
            self._disk.poll()
        self._again = self._committing
        self._commit_or_watch()

    async def durable(self, number: int) -> None:
        """Returns once the record of this number is on the disk.

        Raises:
            JournalError: If the disk failed.
        """
        if self._disk is not None:
            self._disk.poll()
        if any(number in lost for lost in self._lost):
            raise JournalError("usage cannot be recorded at present")
        if number <= self._durable:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((number, future))
        self._commit_or_watch()
        await future

    def drop_shipped(self) -> None:
        """Deletes the full segments that nobody needs any more."""
        for segment in [s for s in self._old if s.pins == 0 and s.shipped == s.end]:
            self._old.remove(segment)
            _close(segment)
            segment.path.unlink(missing_ok=True)

    @property
    def booked(self) -> int:
        """Requests that were let in and are not settled."""
        return self._booked

    @property
    def backlog_bytes(self) -> int:
        """What the controller is still to be told of, reservations included."""
        return sum(segment.end - segment.shipped for segment in self.written)

    @property
    def written(self) -> list[Segment]:
        """The segments with records, oldest first."""
        current = [] if self._current is None else [self._current]
        return [*self._old, *current]

    async def close(self, *, delete: bool) -> None:
        """Makes everything durable and gives the lock up; with `delete` nothing remains."""
        if self._disk is not None:
            if not delete and self._appended:
                with contextlib.suppress(JournalError):
                    await self.durable(self._appended)
            self._disk.close()
            self._disk = None
        for segment in self._spares:
            segment.path.unlink(missing_ok=True)
        for segment in (*self.written, *self._spares):
            _close(segment)
        if delete or not self.written:
            remove_folder(self.folder)
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    # --- segments -----------------------------------------------------------------------------

    def _room(self) -> int:
        current = 0
        if self._current is not None:
            current = self._segment_bytes - self._current.end
        # At each turn less than one request's room is left over at a segment's end.
        whole = self._segment_bytes - HEADER.size - BOOKED_BYTES
        return max(0, current - BOOKED_BYTES) + whole * len(self._spares)

    def _allocate(self) -> Segment:
        number = self._made + 1
        path = self.folder / f"{number:08d}{SUFFIX}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self._segment_bytes)
            os.pwrite(fd, encode_header(boot_id()), 0)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        self._made = number
        return Segment(number, path, fd, HEADER.size)

    def _turn_over(self) -> Segment:
        if not self._spares:
            try:
                self._spares.append(self._allocate())
            except OSError as exc:
                raise JournalError("usage cannot be recorded at present") from exc
        if self._current is not None:
            self._old.append(self._current)
        self._current = self._spares.popleft()
        return self._current

    # --- group commit -------------------------------------------------------------------------

    def _commit_or_watch(self) -> None:
        """Begins a commit; or has the loop woken at the end of the one that runs, which else
        whoever comes next sees."""
        if not self._committing:
            self._committing = True
            loop = asyncio.get_running_loop()
            wait_s = self._next_commit_s - loop.time()
            if wait_s > 0:
                loop.call_later(wait_s, self._commit)
            else:
                self._commit()
        elif self._disk is not None:
            self._disk.watch()

    def _commit(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_commit_s = loop.time() + COMMIT_INTERVAL_S
        number = self._appended
        dirty = [(s, s.end) for s in self.written if s.synced < s.end]
        if self._lock_fd is None:
            return  # closed: nobody waits
        if self._disk is None:
            self._disk = self._make_disk()

        def done(failed: OSError | None) -> None:
            if failed is None:
                self._committed(number, dirty)
            else:
                self._commit_failed(failed)

        self._disk.sync([segment.fd for segment, _ in dirty], done)
        if self._waiters:
            self._disk.watch()

    def _committed(self, number: int, dirty: list[tuple[Segment, int]]) -> None:
        self._committing, again, self._again = False, self._again, False
        self._durable = number
        for segment, end in dirty:
            segment.synced = end
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter[0] > number:
                self._waiters.append(waiter)
            elif not waiter[1].done():
                waiter[1].set_result(None)
        if self._waiters or again:
            self._commit_or_watch()

    def _commit_failed(self, exc: OSError) -> None:
        self._committing = self._again = False
        self._lost.append(range(self._durable + 1, self._appended + 1))
        log.error("journal_commit_failed", folder=str(self.folder), reason=str(exc))
        if self._current is not None:  # what the kernel says of these pages later proves nothing
            self._current.synced = self._current.end
            self._old.append(self._current)
            self._current = None
        waiters, self._waiters = self._waiters, []
        for _, future in waiters:
            if not future.done():
                future.set_exception(JournalError("usage cannot be recorded at present"))


def remove_folder(folder: Path) -> None:
    """Removes a journal that is settled; its lock goes last."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        path.unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # what is kept aside stays
        folder.rmdir()


def boot_id() -> str:
    """Names the time since the machine's start; empty where the kernel does not tell."""
    try:
        return BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def _close(segment: Segment) -> None:
    if segment.fd >= 0:
        os.close(segment.fd)
        segment.fd = -1
