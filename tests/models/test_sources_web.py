"""Archives of a web server: resumed, checked, and never let out of their folder."""

import hashlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models import sources
from models.cache import NodeCache
from models.cache_download import CorruptError, Patience
from models.cache_unpack import ArchiveError
from models.errors import SourceError
from models.remotes.listing import ChangedError, FetchError, PlaceAwayError
from models.remotes.objects import Door
from models.sources import Access
from tests.models.faulty import Faults, FaultyHandler, serving
from tests.models.test_sources import write_model

AT_ONCE = Patience(tries=3, sleep=lambda _: None)


@contextmanager
def web(
    content: bytes, name: str = "m.tar.gz", token: str | None = None
) -> Iterator[tuple[str, Faults]]:
    """Serves one file; yields its URL and what was asked."""
    faults = Faults()
    served = {"content": content}

    class Handler(FaultyHandler):
        def do_GET(self) -> None:
            self._serve(with_body=True)

        def do_HEAD(self) -> None:
            self._serve(with_body=False)

        def _serve(self, *, with_body: bool) -> None:
            if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
                self.plain(401, b"", {}, with_body=False)
            elif self.path == f"/{name}":
                body = served["content"]
                tag = hashlib.md5(body, usedforsecurity=False).hexdigest()
                self.content(body, {"ETag": f'"{tag}"'}, with_body=with_body)
            else:
                self.plain(404, b"", {}, with_body=False)

    with serving(Handler, faults) as url:
        yield f"{url}/{name}", faults


def tar_of(folder: Path, top: str = "tiny/", mode: str = "w:gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for path in sorted(folder.iterdir()):
            archive.add(path, f"{top}{path.name}")
    return packed.getvalue()


def zip_of(folder: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return packed.getvalue()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "repo")
    header_and_more = (folder / "model.safetensors").read_bytes()
    # Random bytes, so that the archive is as large as they are.
    size = 2 << 20
    text = header_and_more[8:].split(b"}}")[0] + b"}}"
    text = text.replace(b"16]", str(size).encode() + b"]")
    header = len(text).to_bytes(8, "little") + text
    (folder / "model.safetensors").write_bytes(header + os.urandom(size))
    return folder


def node(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", patience=AT_ONCE)


def same(folder: Path, repo: Path) -> bool:
    names = sorted(path.name for path in repo.iterdir())
    return all((folder / name).read_bytes() == (repo / name).read_bytes() for name in names)


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
def test_archive_becomes_a_models_folder(tmp_path: Path, repo: Path, kind: str) -> None:
    content = zip_of(repo) if kind == "zip" else tar_of(repo, mode=f"w:{kind[4:]}")
    with web(content, f"m.{kind}") as (url, faults):
        pinned = sources.inspect(url, Access()).source
        assert "#pin=" in pinned
        folder = sources.have(pinned, Access(), node(tmp_path)).folder
        assert same(folder, repo)
        assert list((tmp_path / "cache" / "partial").iterdir()) == [], "the archive is not kept"
        before = len(faults.asked)
        sources.have(pinned, Access(), node(tmp_path))
        assert len(faults.asked) == before


def test_broken_connection_is_resumed(tmp_path: Path, repo: Path) -> None:
    with web(tar_of(repo)) as (url, faults):
        faults.cut["m.tar.gz"] = [1 << 20]
        assert same(sources.have(url, Access(), node(tmp_path)).folder, repo)
        first, second = faults.ranges("m.tar.gz")
        assert (first, second.startswith("bytes=")) == ("", True)
        assert faults.bytes_of("m.tar.gz") < 1.7 * len(tar_of(repo))


def test_checksum_of_the_manifest_counts(tmp_path: Path, repo: Path) -> None:
    content = tar_of(repo)
    right = Access(sha256=hashlib.sha256(content).hexdigest())
    with web(content) as (url, faults):
        pinned = sources.inspect(url, right).source
        assert pinned == f"{url}#sha256={right.sha256}"
        with pytest.raises(CorruptError):
            sources.have(url, Access(sha256="0" * 64), node(tmp_path))
        faults.corrupt["m.tar.gz"] = 1
        with pytest.raises(CorruptError):
            sources.have(pinned, right, node(tmp_path))
        assert same(sources.have(pinned, right, node(tmp_path)).folder, repo)


def test_archive_that_changed_since_the_deploy_is_refused(tmp_path: Path, repo: Path) -> None:
    with web(tar_of(repo)) as (url, _):
        pinned = sources.inspect(url, Access()).source
    port = int(url.split(":")[2].partition("/")[0])
    with web(tar_of(write_model(tmp_path / "other"))) as (other, _):
        moved = pinned.replace(str(port), other.split(":")[2].partition("/")[0])
        with pytest.raises(ChangedError, match="not what it was at the deploy"):
            sources.have(moved, Access(), node(tmp_path))


def test_token_is_asked_for(repo: Path) -> None:
    with web(tar_of(repo), token="let-me-in") as (url, _):
        with pytest.raises(FetchError, match="without a token"):
            sources.inspect(url, Access())
        assert sources.inspect(url, Access(door=Door(token="let-me-in"))).listing


def test_what_is_not_there_is_told(repo: Path) -> None:
    with web(tar_of(repo)) as (url, _), pytest.raises(FetchError, match="404"):
        sources.inspect(url + "x", Access())
    with pytest.raises(PlaceAwayError, match="could not be fetched"):
        sources.inspect("http://127.0.0.1:9/m.tar", Access())


def _hostile_tar(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, "/etc/passwd", 2 if kind == b"0" else 0
        archive.addfile(info, io.BytesIO(b"{}") if info.size else None)
    return packed.getvalue()


def _hostile_zip(name: str, mode: int = 0o644) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")
    return packed.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        _hostile_tar("../../evil.json"),
        _hostile_tar("/etc/evil.json"),
        _hostile_tar("a/../../evil.json"),
        _hostile_tar("config.json", tarfile.SYMTYPE),
        _hostile_tar("config.json", tarfile.LNKTYPE),
        _hostile_tar("config.json", tarfile.CHRTYPE),
        _hostile_zip("../evil.json"),
        _hostile_zip("/evil.json"),
        _hostile_zip("config.json", stat.S_IFLNK | 0o777),
        b"neither of the two",
        tar_of(Path(__file__).parent / "remotes")[:100],
    ],
    ids=[
        "tar up",
        "tar absolute",
        "tar in and up",
        "tar symlink",
        "tar link",
        "tar device",
        "zip up",
        "zip absolute",
        "zip symlink",
        "neither",
        "cut",
    ],
)
def test_hostile_or_broken_archive_is_refused_and_leaves_nothing(
    tmp_path: Path, content: bytes
) -> None:
    with web(content) as (url, _), pytest.raises(SourceError) as caught:
        sources.have(url, Access(), node(tmp_path))
    assert isinstance(caught.value, ArchiveError | FetchError)
    assert not list(tmp_path.rglob("evil*"))
    assert node(tmp_path).snapshots() == []


def test_archive_that_grows_too_much_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.json", bytes(30 << 20))
    with web(packed.getvalue(), "m.zip") as (url, _), pytest.raises(ArchiveError, match="grow"):
        sources.have(url, Access(), node(tmp_path))
