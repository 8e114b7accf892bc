"""How the node cache lies on the disk, and what it notes of each snapshot.

blobs/SHA256            content, once, read-only
snapshots/KEY/...       links to blobs, and RECORD: a model's folder, at this path for good
staging/KEY/...         a snapshot that is not complete
partial/NAME            bytes of one file that is not complete
locks/KEY.use           shared by whoever uses the snapshot; its time is that of the last use
locks/KEY.fetch         held by the one process that fetches it
locks/NAME.part         held by the one that writes partial/NAME
locks/cache             held for each change of blobs and links, which are all short
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

RECORD = ".penstock.json"


class CachedFile(BaseModel):
    """One file of a snapshot."""

    model_config = ConfigDict(frozen=True)

    path: str
    sha256: str
    size: int
    mtime_ns: int
    """Of the blob when it was written: a blob that bears another time is read and checked."""


class SnapshotRecord(BaseModel):
    """What a snapshot is; written last, so that a folder without one is none."""

    model_config = ConfigDict(frozen=True)

    source: str
    """The pinned source that it holds."""
    fetched_at: float
    """Unix seconds."""
    files: tuple[CachedFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a node cache."""

    root: Path

    def make(self) -> None:
        """Makes the folders."""
        for name in ("blobs", "snapshots", "staging", "partial", "locks"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def blob(self, sha256: str) -> Path:
        """The content with this hash."""
        return self.root / "blobs" / sha256

    def snapshot(self, key: str) -> Path:
        """A model's folder."""
        return self.root / "snapshots" / key

    def staging(self, key: str) -> Path:
        """The same, while it is not complete."""
        return self.root / "staging" / key

    def partial(self, name: str) -> Path:
        """A file that is not complete."""
        return self.root / "partial" / name

    def lock(self, name: str) -> Path:
        """A lock's file."""
        return self.root / "locks" / name

    def published(self) -> list[str]:
        """The keys of all complete snapshots."""
        return sorted(path.parent.name for path in self.root.glob(f"snapshots/*/{RECORD}"))

    def record(self, key: str) -> SnapshotRecord | None:
        """What is noted of a snapshot; None where there is none."""
        try:
            text = (self.snapshot(key) / RECORD).read_bytes()
            return SnapshotRecord.model_validate_json(text)
        except (OSError, ValidationError):
            return None

    def put_record(self, folder: Path, record: SnapshotRecord) -> None:
        """Notes what a folder holds, at once or not at all."""
        fresh = folder / f"{RECORD}.new"
        with fresh.open("w") as out:
            out.write(record.model_dump_json())
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(folder / RECORD)

    def links(self) -> Iterator[tuple[Path, str]]:
        """All links of staged folders with the hash that each leads to."""
        for root, _, names in os.walk(self.root / "staging"):
            for name in names:
                path = Path(root, name)
                if path.is_symlink():
                    yield path, path.readlink().name

    def used_bytes(self) -> int:
        """What blobs and partial files take."""
        folders = (self.root / "blobs", self.root / "partial")
        return sum(_size(path) for folder in folders for path in folder.iterdir())


def link(blob: Path, at: Path) -> None:
    """Makes `at` a relative link to a blob; one that is there already is replaced."""
    at.parent.mkdir(parents=True, exist_ok=True)
    fresh = at.with_name(f".{at.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(blob, at.parent))
    fresh.replace(at)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
