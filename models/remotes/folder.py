"""A folder that every node sees, as on a network file system; copied to the node's own disk."""

import os
from collections.abc import Iterator
from pathlib import Path

from models.remotes.listing import (
    CHUNK_BYTES,
    ChangedError,
    FetchError,
    Listing,
    PlaceAwayError,
    RemoteFile,
    Selection,
)


class LocalFolder:
    """One folder of this machine's file systems."""

    def __init__(self, folder: Path, selection: Selection) -> None:
        self._folder = folder
        self._selection = selection

    def listing(self) -> Listing:
        """Its files, known by size and time."""
        if not self._folder.is_dir():
            raise FetchError(
                f"{self._folder} is not a folder",
                param="source",
                hint="give an absolute path to the model",
            )
        files = []
        for root, folders, names in os.walk(self._folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                path = Path(root, name)
                try:
                    found = path.stat()
                except OSError:
                    continue  # a dangling link, or gone between the two calls
                inner = path.relative_to(self._folder).as_posix()
                files.append(RemoteFile(inner, found.st_size, version=str(found.st_mtime_ns)))
        return Listing(self._selection.of(files))

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """A file's bytes, if it is still the listed one at their end."""
        path = self._folder / file.path
        try:
            with path.open("rb") as stream:
                stream.seek(offset)
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
                found = os.fstat(stream.fileno())
        except FileNotFoundError as exc:
            raise ChangedError(f"{path} is not there any more", param="source") from exc
        except OSError as exc:
            raise PlaceAwayError(f"{path} cannot be read: {exc.strerror}", param="source") from exc
        if (found.st_size, str(found.st_mtime_ns)) != (file.size, file.version):
            raise ChangedError(f"{path} changed while it was copied", param="source")
