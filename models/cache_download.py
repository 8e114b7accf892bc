"""One file of a remote place to one file of the node: resumed, checked, tried again."""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.cache_progress import Progress
from models.errors import SourceError, UnavailableError
from models.remotes.listing import CHUNK_BYTES, PlaceAwayError, Remote, RemoteFile

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CacheFullError(UnavailableError):
    """The node's disk, or the bound that was set, has no room for what is to be fetched."""

    code = "cache_full"


class CorruptError(SourceError):
    """Bytes that do not come to their checksum, over and over."""

    code = "corrupt_weights"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a place is tried that does not answer; each byte that comes in starts it anew."""

    tries: int = 6
    first_delay_s: float = 0.5
    sleep: Callable[[float], None] = time.sleep

    def wait(self, failures: int) -> None:
        """Waits after so many failures in a row: longer each time, 8 s at most."""
        self.sleep(min(self.first_delay_s * 2 ** (failures - 1), 8.0))


def download(
    remote: Remote, file: RemoteFile, partial: Path, progress: Progress, patience: Patience
) -> str:
    """Fetches what `partial` has not yet of a file; returns the SHA-256 of all of it.

    What an earlier process left in `partial` is read again and counted. A wrong checksum throws it
    away; the file is fetched from its start once more, and not a third time.

    Raises:
        CorruptError: If the bytes do not come to the checksum.
        CacheFullError: If the disk is full; `partial` is removed then.
        FetchCancelledError: If nobody wants it any more; `partial` stays, as after all else.
        FetchError, PlaceAwayError: As the remote says.
    """
    clean = not partial.exists() or partial.stat().st_size == 0
    while True:
        with _disk(partial):
            digest = _fill(remote, file, partial, progress, patience)
        if digest is not None:
            return digest
        progress.found(-partial.stat().st_size)
        partial.unlink()
        if clean:
            raise CorruptError(
                f"{file.path} does not come to its checksum, however often it is fetched",
                param="source",
                hint="the file is broken where it lies, or on the way; ask who keeps it",
            )
        clean = True


def _fill(
    remote: Remote, file: RemoteFile, partial: Path, progress: Progress, patience: Patience
) -> str | None:
    """Completes `partial`; None where it does not come to the checksum."""
    whole = hashlib.sha256()
    # One hash will do where the place tells the one that names the blob.
    own = file.checksum is not None and file.sha256 is None
    check = file.checksum.start(file.size) if file.checksum is not None and own else None
    failures = 0
    with partial.open("ab+") as out:
        if out.tell() > file.size:
            out.truncate(0)
        out.seek(0)
        while chunk := out.read(CHUNK_BYTES):
            progress.check()
            whole.update(chunk)
            if check is not None:
                check.update(chunk)
        offset = out.tell()
        progress.found(offset)
        while offset < file.size:
            try:
                for chunk in remote.read(file, offset):
                    progress.check()
                    if not chunk:
                        continue
                    if offset + len(chunk) > file.size:
                        raise PlaceAwayError(f"{file.path} is longer than was told")
                    out.write(chunk)
                    whole.update(chunk)
                    if check is not None:
                        check.update(chunk)
                    offset += len(chunk)
                    failures = 0
                    progress.advance(len(chunk))
                if offset < file.size:
                    raise PlaceAwayError(
                        f"{file.path} broke off after {offset} of {file.size} bytes",
                        param="source",
                        hint="what came is kept; try again",
                    )
            except PlaceAwayError:
                failures += 1
                if failures >= patience.tries:
                    raise
                out.flush()
                patience.wait(failures)
                progress.check()
        out.flush()
        os.fsync(out.fileno())
    told = check or whole
    if file.checksum is not None and told.hexdigest() != file.checksum.value:
        return None
    return whole.hexdigest()


@contextmanager
def _disk(partial: Path) -> Iterator[None]:
    """A full disk gets its bytes back, and an error that says so."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in NO_ROOM:
            raise
        partial.unlink(missing_ok=True)
        raise no_room(partial.parent) from exc


def no_room(folder: Path, needed: int = 0, bound: int | None = None) -> CacheFullError:
    """The error for a cache that cannot take more."""
    free = os.statvfs(folder)
    missing = f"; {needed / 2**30:.2f} GiB are needed" if needed else ""
    if bound is not None:
        return CacheFullError(
            f"the node cache may hold {bound / 2**30:.2f} GiB, and what it has is in use{missing}",
            hint="raise the cache's bound (cache_gib), or stop models on this node",
        )
    return CacheFullError(
        f"the disk of the node cache is full: {free.f_bavail * free.f_frsize / 2**30:.2f} GiB are "
        f"free{missing}",
        hint="make room on its disk (cache_dir); `penstock cache rm` removes models",
    )
