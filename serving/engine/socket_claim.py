"""A Unix socket that exactly one living process serves: a lock file decides, not the socket."""

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from models.errors import BadRequestError, ConflictError
from serving.engine import shared_memory

SCRATCH_PREFIX = "penstock-"
MAX_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux."""


class Claim:
    """The right to serve a socket's path.

    Attributes:
        scratch_dir: A folder for temporary files with a short path. The lock file names it, so
            that the next one to claim the path removes what a killed one left.
    """

    def __init__(self, path: Path, lock_fd: int) -> None:
        self._path = path
        self._lock_fd = lock_fd
        self._listener: socket.socket | None = None
        before = Path(os.fsdecode(os.pread(lock_fd, 4096, 0)))
        if before.name.startswith(SCRATCH_PREFIX):
            for scratch_dir in before.glob("*"):
                shared_memory.remove(scratch_dir)
            shutil.rmtree(before, ignore_errors=True)
        self.scratch_dir = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, os.fsencode(self.scratch_dir), 0)

    def listen(self) -> socket.socket:
        """Listens at the path, for this user alone; replaces what a dead process left there."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        previous = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(previous)
        listener.listen(128)
        self._listener = listener
        return listener

    def abandon(self) -> None:
        """Lets a forked child not hold the claim: a lock lives as long as any copy of it."""
        if self._listener is not None:
            self._listener.close()
        os.close(self._lock_fd)


@contextlib.contextmanager
def claim_socket(path: Path) -> Iterator[Claim]:
    """Claims a socket's path until the block ends, then removes the socket.

    Raises:
        ConflictError: If a living process has claimed it.
        BadRequestError: If the path cannot be used.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise BadRequestError(
            f"{path} is longer than the {MAX_PATH_BYTES} bytes that a Unix socket may have",
            hint="choose a shorter data directory",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_fd = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise BadRequestError(f"cannot use {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock_fd)
        raise ConflictError(
            f"another launcher serves {path}", hint="stop it, or choose another socket"
        ) from exc
    claim = Claim(path, lock_fd)
    try:
        yield claim
    finally:
        shutil.rmtree(claim.scratch_dir, ignore_errors=True)
        path.unlink(missing_ok=True)
        os.close(lock_fd)
