"""The node cache's content: fetched into blobs, linked into folders, checked again."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from models.cache_download import Patience, download
from models.cache_locks import locked
from models.cache_progress import Progress
from models.cache_records import CachedFile, Layout, SnapshotRecord, link
from models.cache_unpack import members
from models.remotes.listing import CHUNK_BYTES, ChangedError, Remote, RemoteFile, Selection


class Blobs:
    """The files of one node cache."""

    def __init__(self, layout: Layout, patience: Patience) -> None:
        self._layout = layout
        self._patience = patience

    # --- fetching -------------------------------------------------------------------------------

    def known(self, key: str) -> dict[str, str]:
        """SHA-256 of each file of a snapshot as far as it was ever complete, by path."""
        record = self._layout.record(key)
        known = {} if record is None else {file.path: file.sha256 for file in record.files}
        staging = self._layout.staging(key)
        for path, digest in self._layout.links():
            if path.is_relative_to(staging):
                known[path.relative_to(staging).as_posix()] = digest
        return known

    def missing_bytes(self, source: str, file: RemoteFile, known: Mapping[str, str]) -> int:
        """What has yet to be fetched of a file."""
        digest = file.sha256 or known.get(file.path)
        if digest is not None and self._layout.blob(digest).exists():
            return 0
        partial = self._layout.partial(_name(source, file))
        return max(0, file.size - (partial.stat().st_size if partial.exists() else 0))

    def fetch(
        self,
        remote: Remote,
        source: str,
        file: RemoteFile,
        staging: Path,
        progress: Progress,
        known: Mapping[str, str],
    ) -> None:
        """Has one file of a remote place in `staging`, fetched unless its content is here."""
        expected = known.get(file.path)
        digest = file.sha256 or expected
        if digest is not None and self._link_known(digest, file, staging):
            progress.found(file.size)
            return
        partial = self._layout.partial(_name(source, file))
        part = self._layout.lock(f"{partial.name}.part")
        with locked(part, progress.check) as writing:
            # Another snapshot may hold the same content, and its fetcher may just have been faster.
            if digest is not None and self._link_known(digest, file, staging):
                progress.found(file.size)
            else:
                found = download(remote, file, partial, progress, self._patience)
                if expected is not None and found != expected:
                    partial.unlink()
                    raise ChangedError(
                        f"{file.path} is not what it was when it was first fetched", param="source"
                    )
                self._store(partial, found, staging / file.path)
            writing.remove()

    def unpack(
        self,
        remote: Remote,
        source: str,
        file: RemoteFile,
        staging: Path,
        progress: Progress,
        selection: Selection,
    ) -> None:
        """Has the wanted files of an archive in `staging`; the archive itself is not kept."""
        archive = self._layout.partial(_name(source, file))
        with locked(self._layout.lock(f"{archive.name}.part"), progress.check) as writing:
            download(remote, file, archive, progress, self._patience)
            try:
                for member, stream in members(archive, selection):
                    progress.check()
                    spot = self._layout.partial(f"{archive.name}.member")
                    try:
                        self._store(spot, _copy(stream, spot), staging / member.path)
                    finally:
                        spot.unlink(missing_ok=True)
            except OSError:
                archive.unlink(missing_ok=True)  # a full disk: give it back
                raise
            archive.unlink()
            writing.remove()

    def publish(self, key: str, source: str, at: float) -> None:
        """Makes a staged folder the snapshot, at once."""
        staging, snapshot = self._layout.staging(key), self._layout.snapshot(key)
        files = []
        for path, digest in sorted(self._layout.links()):
            if path.is_relative_to(staging):
                found = self._layout.blob(digest).stat()
                inner = path.relative_to(staging).as_posix()
                files.append(
                    CachedFile(
                        path=inner, sha256=digest, size=found.st_size, mtime_ns=found.st_mtime_ns
                    )
                )
        record = SnapshotRecord(source=source, fetched_at=at, files=tuple(files))
        with locked(self._layout.lock("cache")):
            if (before := self._layout.record(key)) is not None:
                # Mended in its place, for those who use it: the links must be the same as before.
                if _contents(before) != _contents(record):
                    raise ChangedError(f"{source} is not what was first fetched", param="source")
                self._layout.put_record(snapshot, record)
                shutil.rmtree(staging)
                return
            shutil.rmtree(snapshot, ignore_errors=True)  # what a removal left that was cut short
            self._layout.put_record(staging, record)
            staging.rename(snapshot)
            _sync(snapshot.parent)

    def _link_known(self, digest: str, file: RemoteFile, staging: Path) -> bool:
        with locked(self._layout.lock("cache")):
            blob = self._layout.blob(digest)
            if not blob.exists() or blob.stat().st_size != file.size:
                return False
            link(blob, staging / file.path)
            return True

    def _store(self, content: Path, digest: str, at: Path) -> None:
        """Makes complete content a blob, and links it; the lock keeps a sweep from in between."""
        with locked(self._layout.lock("cache")):
            blob = self._layout.blob(digest)
            if not blob.exists():
                content.chmod(0o444)
                content.rename(blob)
            content.unlink(missing_ok=True)
            link(blob, at)

    # --- checking -------------------------------------------------------------------------------

    def intact(self, record: SnapshotRecord) -> bool:
        """Whether all blobs are there and look untouched; those that do not are read."""
        return all(self.check(file) for file in record.files)

    def check(self, file: CachedFile, *, thorough: bool = False) -> bool:
        """Whether a blob is what it was; one that is not is dropped.

        Args:
            file: The blob as it was.
            thorough: Read it, even where its size and time say that nobody wrote to it.
        """
        blob = self._layout.blob(file.sha256)
        try:
            found = blob.stat()
        except OSError:
            return False
        untouched = (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns)
        if untouched and not thorough:
            return True
        if found.st_size == file.size and _digest(blob) == file.sha256:
            if not untouched:
                os.utime(blob, ns=(found.st_atime_ns, file.mtime_ns))
            return True
        with locked(self._layout.lock("cache")):
            blob.unlink(missing_ok=True)
        return False


def _contents(record: SnapshotRecord) -> dict[str, str]:
    return {file.path: file.sha256 for file in record.files}


def _name(source: str, file: RemoteFile) -> str:
    """A partial file's name: the same for the same content, and no other."""
    if file.sha256 is not None:
        return file.sha256
    text = f"{source}\0{file.path}\0{file.size}\0{file.version}\0{file.checksum}"
    return hashlib.sha256(text.encode()).hexdigest()


def _copy(stream: IO[bytes], to: Path) -> str:
    """Writes a stream to a file; returns its SHA-256."""
    whole = hashlib.sha256()
    with to.open("wb") as out:
        while chunk := stream.read(CHUNK_BYTES):
            out.write(chunk)
            whole.update(chunk)
        out.flush()
        os.fsync(out.fileno())
    return whole.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Has a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
