"""Locks between the processes of one node: files with `flock`, freed by the kernel at any death."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

POLL_S = 0.05
"""Between two tries to take a lock that another process holds."""


class FileLock:
    """One held lock; `take` it, `release` it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def try_take(cls, path: Path, *, shared: bool = False) -> Self | None:
        """The lock, or None while somebody else holds it otherwise."""
        path.parent.mkdir(parents=True, exist_ok=True)
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            # Whoever held it may have removed the file meanwhile: then this is nobody's lock.
            if _is_same(path, descriptor):
                return cls(path, descriptor)
            os.close(descriptor)

    @classmethod
    def take(
        cls, path: Path, *, shared: bool = False, meanwhile: Callable[[], None] = lambda: None
    ) -> Self:
        """The lock, however long it takes; `meanwhile` is called often, and may raise."""
        while True:
            if (lock := cls.try_take(path, shared=shared)) is not None:
                return lock
            meanwhile()
            time.sleep(POLL_S)

    def note(self, text: str) -> None:
        """Leaves a line for those who wait; see `read_note`."""
        if self._descriptor is not None:
            os.pwrite(self._descriptor, text.encode().ljust(64), 0)

    def touch(self) -> None:
        """Marks the moment; see `touched_at`."""
        os.utime(self.path)

    def release(self) -> None:
        """Lets the lock go; may be called again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def remove(self) -> None:
        """Lets an exclusive lock go with its file, so that none are left of what is done."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
        self.release()


@contextmanager
def locked(path: Path, meanwhile: Callable[[], None] = lambda: None) -> Iterator[FileLock]:
    """Holds an exclusive lock."""
    lock = FileLock.take(path, meanwhile=meanwhile)
    try:
        yield lock
    finally:
        lock.release()


def read_note(path: Path) -> str:
    """What the holder of a lock left for those who wait; empty where there is nothing."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def touched_at(path: Path) -> float:
    """When a lock was last touched, in Unix seconds; 0 where it never was taken."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
