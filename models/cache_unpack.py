"""Takes a model's files out of a tar or zip, and lets nothing out of the folder they belong in."""

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from models.errors import SourceError
from models.remotes.listing import RemoteFile, Selection, check_path

MOST_FILES = 10_000
MOST_GROWTH = 20
"""An archive that claims to hold more than this many times its own bytes is a bomb: weights barely
compress."""


class ArchiveError(SourceError):
    """An archive that cannot be read, or that tries to leave its folder."""

    code = "invalid_archive"


def members(archive: Path, selection: Selection) -> Iterator[tuple[RemoteFile, IO[bytes]]]:
    """The wanted files of an archive with their bytes; one folder around all is left away.

    Raises:
        ArchiveError: If it is neither tar nor zip, is broken, or holds a link or a path that
            leads out of it.
    """
    try:
        if zipfile.is_zipfile(archive):
            yield from _of_zip(archive, selection)
        elif tarfile.is_tarfile(archive):
            yield from _of_tar(archive, selection)
        else:
            raise ArchiveError("the archive is neither a tar nor a zip", param="source")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise  # of our own disk
        raise ArchiveError(f"the archive is broken: {exc}", param="source") from exc


def _of_zip(archive: Path, selection: Selection) -> Iterator[tuple[RemoteFile, IO[bytes]]]:
    with zipfile.ZipFile(archive) as pack:
        infos = [info for info in pack.infolist() if not info.is_dir()]
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise _link(info.filename)
        named = {info.filename: info for info in infos}
        sizes = {name: info.file_size for name, info in named.items()}
        for file, original in _wanted(sizes, archive, selection):
            with pack.open(named[original]) as stream:
                yield file, stream


def _of_tar(archive: Path, selection: Selection) -> Iterator[tuple[RemoteFile, IO[bytes]]]:
    with tarfile.open(archive) as pack:
        found: dict[str, tarfile.TarInfo] = {}
        for info in pack:
            if info.isdir():
                continue
            if not info.isreg():
                raise _link(info.name)
            found[info.name] = info
            if len(found) > MOST_FILES:
                break
        sizes = {name: info.size for name, info in found.items()}
        for file, original in _wanted(sizes, archive, selection):
            stream = pack.extractfile(found[original])
            if stream is not None:
                with stream:
                    yield file, stream


def _wanted(
    sizes: dict[str, int], archive: Path, selection: Selection
) -> list[tuple[RemoteFile, str]]:
    """The selected files below the folder that all share, each with its name in the archive."""
    if len(sizes) > MOST_FILES:
        raise ArchiveError(f"the archive holds more than {MOST_FILES} files", param="source")
    packed = archive.stat().st_size
    if sum(sizes.values()) > max(packed * MOST_GROWTH, 64 << 20):
        raise ArchiveError(
            f"the archive would grow from {packed} to {sum(sizes.values())} bytes", param="source"
        )
    plain = {name.removeprefix("./"): name for name in sizes}
    for name in plain:
        check_path(name)
    configs = [PurePosixPath(name) for name in plain if name.endswith("config.json")]
    tops = [path.parent for path in configs if path.name == "config.json"]
    top = min(tops, key=lambda folder: len(folder.parts), default=PurePosixPath("."))
    prefix = "" if top == PurePosixPath(".") else f"{top}/"
    inner = {
        name.removeprefix(prefix): original
        for name, original in plain.items()
        if name.startswith(prefix)
    }
    files = selection.of(RemoteFile(name, sizes[original]) for name, original in inner.items())
    return [(file, inner[file.path]) for file in files]


def _link(name: str) -> ArchiveError:
    return ArchiveError(
        f"the archive holds a link or a device, which a model does not need: {name!r}",
        param="source",
    )
