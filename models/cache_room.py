"""Makes room in the node cache: what is in use stays, the longest unused goes first."""

import os
import shutil
from collections.abc import Set
from pathlib import Path

from models.cache_download import no_room
from models.cache_locks import FileLock, locked, touched_at
from models.cache_records import RECORD, Layout

SPARE_BYTES = 64 << 20
"""That a disk keeps free: logs and sockets live there too."""


class Room:
    """The space of one node cache."""

    def __init__(self, layout: Layout, bound_bytes: int | None) -> None:
        self._layout = layout
        self._bound = bound_bytes

    def make(self, needed: int, keep: Set[str]) -> None:
        """Sees to it that so many bytes can be written.

        Raises:
            CacheFullError: If they cannot even when all that may go is gone.
        """
        if self._has(needed):
            return
        self.drop_leftovers()
        by_age = sorted(
            (touched_at(self._layout.lock(f"{key}.use")), key) for key in self._layout.published()
        )
        for _, key in by_age:
            if self._has(needed):
                return
            if key not in keep:
                self.evict(key)
        if not self._has(needed):
            disk = _free_bytes(self._layout.root) < needed + SPARE_BYTES
            raise no_room(self._layout.root, needed, None if disk else self._bound)

    def _has(self, needed: int) -> bool:
        if self._bound is not None and self._layout.used_bytes() + needed > self._bound:
            return False
        return not needed or _free_bytes(self._layout.root) >= needed + SPARE_BYTES

    def evict(self, key: str) -> int | None:
        """Removes a snapshot; the bytes that this freed, or None where it is in use."""
        use = FileLock.try_take(self._layout.lock(f"{key}.use"))
        if use is None:
            return None
        try:
            # Without its record it is none any more: dying after this line leaves only rubbish.
            (self._layout.snapshot(key) / RECORD).unlink(missing_ok=True)
            shutil.rmtree(self._layout.snapshot(key), ignore_errors=True)
            return self.sweep()
        finally:
            use.release()

    def sweep(self) -> int:
        """Removes blobs that no snapshot has; returns their bytes."""
        freed = 0
        with locked(self._layout.lock("cache")):
            wanted = {digest for _, digest in self._layout.links()}
            for key in self._layout.published():
                if (record := self._layout.record(key)) is not None:
                    wanted.update(file.sha256 for file in record.files)
            for blob in (self._layout.root / "blobs").iterdir():
                if blob.name not in wanted:
                    freed += blob.stat().st_size
                    blob.unlink()
        return freed

    def drop_leftovers(self) -> int:
        """Removes what interrupted fetches left and nobody goes on with; returns its bytes."""
        freed = 0
        for partial in (self._layout.root / "partial").iterdir():
            lock = FileLock.try_take(self._layout.lock(f"{partial.name}.part"))
            if lock is not None:
                freed += _unlink(partial)
                lock.remove()
        for staged in (self._layout.root / "staging").iterdir():
            lock = FileLock.try_take(self._layout.lock(f"{staged.name}.fetch"))
            if lock is not None:
                shutil.rmtree(staged, ignore_errors=True)
                lock.release()
        return freed + self.sweep()


def _unlink(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
