"""The node cache: what was fetched, by content; complete or absent, and never taken from a user.

Knows no kind of source: those are `Remote`s. Every method blocks, and is safe beside any number of
other threads and processes of the node. See `models.cache_records` for how it lies on the disk.
"""

import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from models.cache_blobs import Blobs
from models.cache_download import NO_ROOM, Patience, no_room
from models.cache_locks import FileLock, locked, read_note, touched_at
from models.cache_progress import FetchCancelledError, Progress, SharedProgress
from models.cache_records import Layout, SnapshotRecord
from models.cache_room import Room
from models.errors import ConflictError, NotFoundError
from models.remotes.listing import Listing, Remote, RemoteFile, Selection

STREAMS = 4
"""Files of one snapshot that are fetched at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A snapshot that shall be on the node."""

    key: str
    """Its name in the cache; the same on every node."""
    source: str
    """For the record."""
    open_remote: Callable[[], Remote]
    """Called only where something has to be fetched."""
    selection: Selection = field(default_factory=Selection)
    """Which files of an archive count."""
    accept: Callable[[Listing], None] = lambda listing: None
    """Refuses what is not what was pinned, before anything is fetched."""
    approve: Callable[[Path], None] = lambda folder: None
    """Refuses a complete folder, before it is published."""


class Lease:
    """The use of a snapshot: it is not taken away before `release`, or this process's end."""

    def __init__(self, key: str, folder: Path, lock: FileLock) -> None:
        self.key = key
        self.folder = folder
        self._lock = lock

    def release(self) -> None:
        """The snapshot is not in use any more; may be called again."""
        self._lock.release()


@dataclass(frozen=True, slots=True)
class Cached:
    """A snapshot as it is listed."""

    key: str
    record: SnapshotRecord
    used_at: float
    """Unix seconds of its last use."""
    in_use: bool


@dataclass(frozen=True, slots=True)
class Broken:
    """A file whose content is not what was fetched."""

    key: str
    path: str


class NodeCache:
    """All weights that this node keeps.

    Args:
        root: Its folder, the same path on every node: engines' compile keys contain it.
        bound_bytes: What it may hold at most; by default what the disk does.
        patience: With places that do not answer.
    """

    def __init__(
        self, root: Path, bound_bytes: int | None = None, patience: Patience | None = None
    ) -> None:
        self._layout = Layout(root.absolute())
        self._room = Room(self._layout, bound_bytes)
        self._blobs = Blobs(self._layout, patience or Patience())

    def lease(self, key: str) -> Lease | None:
        """The use of a snapshot that is there and intact, else None; fetches nothing."""
        layout = self._layout
        if not layout.snapshot(key).exists():
            return None
        lock = FileLock.take(layout.lock(f"{key}.use"), shared=True)
        record = layout.record(key)
        if record is None or not self._blobs.intact(record):
            lock.release()
            return None
        lock.touch()
        return Lease(key, layout.snapshot(key), lock)

    def ensure(
        self, wanted: Wanted, progress: Progress | None = None, keep: Iterable[str] = ()
    ) -> Lease:
        """The use of a snapshot; what of it is not here is fetched first.

        Only one process of the node fetches it, the others wait for that one. What others do not
        use gives way where room is needed, the longest unused first.

        Args:
            wanted: What to have.
            progress: Told how far it is; its `stop` ends the fetch.
            keep: Keys of snapshots that must not give way.

        Raises:
            CacheFullError: If there is no room; nothing was fetched then, or none of it is left.
            CorruptError, FetchError, PlaceAwayError: As the remote and its bytes make it.
            FetchCancelledError: If `progress.stop` was set.
            SourceError: As `wanted.accept` and `wanted.approve` say.
        """
        progress = progress or Progress()
        try:
            self._layout.make()
            return self._ensure(wanted, progress, frozenset(keep) | {wanted.key})
        except OSError as exc:
            if exc.errno in NO_ROOM:
                raise no_room(self._layout.root) from exc
            raise

    def _ensure(self, wanted: Wanted, progress: Progress, keep: frozenset[str]) -> Lease:
        layout, key = self._layout, wanted.key
        if (lease := self._present(key, progress)) is not None:
            return lease
        fetching = layout.lock(f"{key}.fetch")

        def look_on() -> None:
            progress.check()
            progress.copy(read_note(fetching))

        with locked(fetching, look_on) as mine:
            if (lease := self._present(key, progress)) is not None:  # another process was faster
                return lease
            # Taken before it is published: nobody can take it away in between.
            use = FileLock.take(layout.lock(f"{key}.use"), shared=True, meanwhile=progress.check)
            try:
                self._fetch(wanted, progress, keep, mine)
            except BaseException:
                use.release()
                raise
            use.touch()
            return Lease(key, layout.snapshot(key), use)

    def _present(self, key: str, progress: Progress) -> Lease | None:
        """The use of a snapshot that is here; the progress is then at its end."""
        lease = self.lease(key)
        record = self._layout.record(key) if lease is not None else None
        if record is not None:
            progress.finish(record.size)
        return lease

    def _fetch(
        self, wanted: Wanted, progress: Progress, keep: frozenset[str], lock: FileLock
    ) -> None:
        remote = wanted.open_remote()
        listing = remote.listing()
        wanted.accept(listing)
        known = self._blobs.known(wanted.key)
        missing = sum(
            self._blobs.missing_bytes(wanted.source, file, known) for file in listing.files
        )
        self._room.make(missing * (2 if listing.packed else 1), keep)
        progress.begin(listing.size)
        staging = self._layout.staging(wanted.key)

        shown = SharedProgress(progress, lock.note)

        def one(file: RemoteFile) -> None:
            try:
                self._blobs.fetch(remote, wanted.source, file, staging, shown, known)
            except BaseException:
                shown.failed.set()
                raise

        if listing.packed:
            (archive,) = listing.files
            self._blobs.unpack(remote, wanted.source, archive, staging, shown, wanted.selection)
        else:
            with ThreadPoolExecutor(STREAMS, thread_name_prefix="fetch") as pool:
                work = [pool.submit(one, file) for file in listing.files]
            _raise_first(work)
        try:
            wanted.approve(staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            self._room.sweep()
            raise
        self._blobs.publish(wanted.key, wanted.source, time.time())

    def snapshots(self) -> list[Cached]:
        """All snapshots, the longest unused first."""
        found = []
        for key in self._layout.published():
            record = self._layout.record(key)
            if record is not None:
                use = self._layout.lock(f"{key}.use")
                free = FileLock.try_take(use)
                if free is not None:
                    free.release()
                found.append(Cached(key, record, touched_at(use), in_use=free is None))
        return sorted(found, key=lambda cached: (cached.used_at, cached.key))

    def used_bytes(self) -> int:
        """What the cache takes on the disk, with what is not complete."""
        self._layout.make()
        return self._layout.used_bytes()

    def remove(self, key: str) -> int:
        """Removes a snapshot and what only it holds; returns the bytes that this freed.

        Raises:
            NotFoundError: If there is none.
            ConflictError: If it is in use.
        """
        if self._layout.record(key) is None:
            raise NotFoundError(f"the cache has no {key}", hint="`penstock cache list`")
        freed = self._room.evict(key)
        if freed is None:
            raise ConflictError(f"{key} is in use", hint="stop its engines on this node first")
        return freed

    def clean(self) -> int:
        """Removes what interrupted fetches left and nobody fetches on; returns the bytes."""
        self._layout.make()
        return self._room.drop_leftovers()

    def verify(self, key: str) -> list[Broken]:
        """Reads a snapshot's files again; broken ones are dropped, and fetched at its next use.

        Raises:
            NotFoundError: If there is none.
        """
        record = self._layout.record(key)
        if record is None:
            raise NotFoundError(f"the cache has no {key}", hint="`penstock cache list`")
        return [
            Broken(key, file.path)
            for file in record.files
            if not self._blobs.check(file, thorough=True)
        ]


def _raise_first(work: list[Future[None]]) -> None:
    """Raises why the first of several fetches failed, and not that the others then gave up."""
    failures = [error for future in work if (error := future.exception()) is not None]
    for error in failures:
        if not isinstance(error, FetchCancelledError):
            raise error
    if failures:
        raise failures[0]
