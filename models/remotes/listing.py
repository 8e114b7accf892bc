"""What a remote place offers: its files with their checksums, and their bytes from any offset."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Protocol

from models.errors import SourceError, UnreachableError

CHUNK_BYTES = 1 << 20
"""Bytes that are asked for, hashed and written at once."""


class FetchError(SourceError):
    """A place that refuses, or that has not what was asked for; another try changes nothing."""

    code = "fetch_failed"


class ChangedError(FetchError):
    """What was pinned at the deploy is not there any more, or is something else now."""

    code = "source_changed"


class PlaceAwayError(UnreachableError):
    """A place that does not answer, or breaks off; worth another try."""

    code = "source_unreachable"


class Hash(StrEnum):
    """How a place says what a file holds."""

    SHA256 = "sha256"
    MD5 = "md5"
    GIT = "git"
    """SHA-1 over git's blob header and the content."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a file's bytes must come to."""

    kind: Hash
    value: str
    """In lower-case hexadecimal digits."""

    def start(self, size: int) -> "hashlib._Hash":
        """A hash that the file's bytes are to be fed to."""
        if self.kind is Hash.GIT:
            return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        return hashlib.new(self.kind.value, usedforsecurity=False)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a remote place."""

    path: str
    """Below the model's folder, with `/` on every system."""
    size: int
    checksum: Checksum | None = None
    version: str = ""
    """Changes when the content does: an ETag, a time; empty where the checksum is enough."""

    @property
    def sha256(self) -> str | None:
        """The SHA-256 where the place tells it."""
        known = self.checksum
        return known.value if known is not None and known.kind is Hash.SHA256 else None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of a place are a model's."""

    pickle: bool = False
    """Pickled weights too: loading them runs what they hold."""
    code: bool = False
    """Python files too, for `trust_remote_code`."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of names, as `fnmatch` takes them."""
        return (
            *("*.json", "*.jinja", "*.safetensors", "*.model", "*.txt", "*.tiktoken"),
            *(PICKLES if self.pickle else ()),
            *(("*.py",) if self.code else ()),
        )

    def of(self, files: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
        """The files that are wanted, by path.

        Weights count at the top only: below it are other formats of the same ones. Of two sets of
        weights side by side (`consolidated*` is Mistral's own layout) the usual one is taken, and
        pickles only where nothing else is there.
        """
        wanted = [file for file in files if self._wants(file.path)]
        names = {file.path for file in wanted}
        usual = any(name.startswith("model") and name.endswith(SAFE) for name in names)
        safe = any(name.endswith(SAFE) for name in names)
        kept = [
            file
            for file in wanted
            if not (usual and file.path.startswith("consolidated"))
            and not (safe and is_pickle(file.path))
        ]
        return tuple(sorted(kept, key=lambda file: file.path))

    def _wants(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if any(part.startswith(".") for part in path.split("/")):
            return False
        heavy = name.endswith(SAFE) or is_pickle(name)
        return not (heavy and folder) and any(fnmatchcase(name, p) for p in self.patterns)


SAFE = ".safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def is_pickle(path: str) -> bool:
    """Whether a file's name says that its weights are pickled."""
    return any(fnmatchcase(path, pattern) for pattern in PICKLES)


@dataclass(frozen=True, slots=True)
class Listing:
    """All files that are to be fetched of one version of a place."""

    files: tuple[RemoteFile, ...]
    packed: bool = False
    """The one file is an archive of the model's files."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """Changes when any file does: 16 hexadecimal digits."""
        lines = [f"{f.path}\0{f.size}\0{f.checksum}\0{f.version}" for f in self.files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class Remote(Protocol):
    """One version of one place. Its methods block, and may be called from several threads."""

    def listing(self) -> Listing:
        """What is there.

        Raises:
            FetchError: If the place refuses, or has nothing.
            PlaceAwayError: If it does not answer.
        """
        ...

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """The bytes of a file from `offset` on, in chunks.

        Raises:
            ChangedError: If the file is not the listed one any more.
            FetchError, PlaceAwayError: As `listing` does; while reading too.
        """
        ...


def check_path(path: str) -> None:
    """Refuses a path that leads out of the model's folder.

    Raises:
        FetchError: If it is absolute, climbs, or names no file.
    """
    parts = path.split("/")
    if not path or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise FetchError(f"a file of the source has a path that leads out of it: {path!r}")
