"""A remote place in memory, with what can go wrong there."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from models.remotes.listing import Checksum, Hash, Listing, PlaceAwayError, RemoteFile

CHUNK = 1000


@dataclass
class MemoryRemote:
    """Files by path; the fields below say what goes wrong with the next reads."""

    files: dict[str, bytes]
    checksums: bool = True
    breaks_after: list[int] = field(default_factory=list)
    """Bytes after which each of the next reads breaks off."""
    lies: int = 0
    """How many of the next reads have a wrong first byte."""
    reads: list[tuple[str, int]] = field(default_factory=list)
    """Path and offset of each read."""
    gate: threading.Event | None = None
    """Reads wait for it after their first chunk."""
    reading: threading.Event = field(default_factory=threading.Event)

    def listing(self) -> Listing:
        return Listing(tuple(self._file(path) for path in sorted(self.files)))

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        self.reads.append((file.path, offset))
        content = self.files[file.path][offset:]
        if self.lies:
            self.lies -= 1
            content = bytes([content[0] ^ 1]) + content[1:]
        end = self.breaks_after.pop(0) if self.breaks_after else len(content)
        for start in range(0, min(end, len(content)), CHUNK):
            yield content[start : min(start + CHUNK, end)]
            self.reading.set()
            if self.gate is not None:
                self.gate.wait(30)
        if end < len(content):
            raise PlaceAwayError(f"{file.path} broke off")

    def _file(self, path: str) -> RemoteFile:
        content = self.files[path]
        digest = hashlib.sha256(content).hexdigest()
        checksum = Checksum(Hash.SHA256, digest) if self.checksums else None
        return RemoteFile(path, len(content), checksum, version=digest[:8])
