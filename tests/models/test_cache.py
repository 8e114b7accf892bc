"""The node cache: complete or absent, never taken from a user, mended where it is broken."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.cache import Lease, NodeCache, Wanted
from models.cache_download import CacheFullError, CorruptError, Patience
from models.cache_progress import FetchCancelledError, Progress
from models.errors import ConflictError, NotFoundError, SourceError
from models.remotes.listing import ChangedError, PlaceAwayError
from tests.models.memory_remote import MemoryRemote

AT_ONCE = Patience(tries=3, sleep=lambda _: None)
KIB = 1024


def wanted(key: str, remote: MemoryRemote, **fields: object) -> Wanted:
    return Wanted(key=key, source=f"memory://{key}", open_remote=lambda: remote, **fields)  # type: ignore[arg-type]


def files(size: int = 10 * KIB, seed: str = "a") -> dict[str, bytes]:
    content = (seed * size).encode()
    return {"config.json": b"{}", "model.safetensors": content}


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", patience=AT_ONCE)


def have(cache: NodeCache, key: str, remote: MemoryRemote, **fields: object) -> Lease:
    return cache.ensure(wanted(key, remote, **fields))


def test_snapshot_is_a_folder_at_a_constant_path(cache: NodeCache, tmp_path: Path) -> None:
    remote = MemoryRemote(files() | {"sub/part.json": b"[]"})
    lease = have(cache, "m", remote)
    assert lease.folder == tmp_path / "cache" / "snapshots" / "m"
    assert {name: (lease.folder / name).read_bytes() for name in remote.files} == remote.files
    lease.release()
    again = have(cache, "m", remote)
    assert again.folder == lease.folder
    assert len(remote.reads) == 3, "what is there is not read again"


def test_same_content_is_kept_once(cache: NodeCache, tmp_path: Path) -> None:
    one, other = MemoryRemote(files()), MemoryRemote(files() | {"config.json": b"{ }"})
    have(cache, "one", one)
    have(cache, "other", other)
    assert [path for path, _ in other.reads] == ["config.json"]
    assert len(list((tmp_path / "cache" / "blobs").iterdir())) == 3


@pytest.mark.parametrize("checksums", [True, False])
def test_broken_read_goes_on_where_it_broke(cache: NodeCache, checksums: bool) -> None:
    remote = MemoryRemote({"model.safetensors": os.urandom(10 * KIB)}, checksums)
    remote.breaks_after = [4000, 3000]
    progress = Progress()
    lease = cache.ensure(wanted("m", remote), progress)
    assert [offset for _, offset in remote.reads] == [0, 4000, 7000]
    assert (progress.done, progress.total, progress.fetched) == (10 * KIB,) * 3
    assert (lease.folder / "model.safetensors").read_bytes() == remote.files["model.safetensors"]


def test_next_process_goes_on_too(cache: NodeCache, tmp_path: Path) -> None:
    remote = MemoryRemote({"model.safetensors": os.urandom(10 * KIB)}, breaks_after=[4000, 0, 0])
    with pytest.raises(PlaceAwayError):
        have(cache, "m", remote)
    assert cache.snapshots() == []
    have(NodeCache(tmp_path / "cache"), "m", remote)
    assert remote.reads[-1] == ("model.safetensors", 4000)


def test_one_lie_is_forgiven_where_something_was_resumed(cache: NodeCache) -> None:
    remote = MemoryRemote(files(), breaks_after=[4000])
    remote.files = {"model.safetensors": os.urandom(10 * KIB)}
    with pytest.raises(PlaceAwayError):
        have(NodeCache(cache._layout.root, patience=Patience(tries=1)), "m", remote)
    remote.lies = 1
    lease = have(cache, "m", remote)
    assert [offset for _, offset in remote.reads] == [0, 4000, 0]
    assert (lease.folder / "model.safetensors").read_bytes() == remote.files["model.safetensors"]


def test_corrupt_source_publishes_nothing(cache: NodeCache, tmp_path: Path) -> None:
    remote = MemoryRemote({"model.safetensors": b"x" * KIB}, lies=99)
    with pytest.raises(CorruptError, match="checksum"):
        have(cache, "m", remote)
    assert cache.snapshots() == []
    assert list((tmp_path / "cache" / "partial").iterdir()) == []


def test_refused_listing_and_refused_folder_leave_nothing(cache: NodeCache, tmp_path: Path) -> None:
    def refuse(_: object) -> None:
        raise ChangedError("it is another one now")

    remote = MemoryRemote(files())
    with pytest.raises(ChangedError):
        have(cache, "m", remote, accept=refuse)
    assert remote.reads == []
    with pytest.raises(SourceError):
        have(cache, "m", remote, approve=refuse)
    assert cache.snapshots() == []
    assert list((tmp_path / "cache" / "blobs").iterdir()) == []


def test_bound_takes_the_longest_unused_first(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache", 25 * KIB)
    for name in ("a", "b"):
        have(cache, name, MemoryRemote(files(seed=name))).release()
    _touch(tmp_path, "a", 10)
    _touch(tmp_path, "b", 5)
    have(cache, "c", MemoryRemote(files(seed="c"))).release()
    assert {cached.key for cached in cache.snapshots()} == {"a", "c"}
    assert cache.used_bytes() <= 25 * KIB


def _touch(tmp_path: Path, key: str, ago_s: int) -> None:
    at = time.time() - 100 + ago_s
    os.utime(tmp_path / "cache" / "locks" / f"{key}.use", (at, at))


def test_what_is_in_use_never_gives_way(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache", 25 * KIB)
    used = [have(cache, name, MemoryRemote(files(seed=name))) for name in ("a", "b")]
    remote = MemoryRemote(files(seed="c"))
    with pytest.raises(CacheFullError, match="in use") as caught:
        have(cache, "c", remote)
    assert remote.reads == [], "it is told before anything is fetched"
    assert "cache_gib" in str(caught.value.hint)
    assert all((lease.folder / "model.safetensors").exists() for lease in used)
    used[0].release()
    have(cache, "c", remote)
    assert [cached.key for cached in cache.snapshots()] == ["b", "c"]


def test_what_is_to_be_kept_does_not_give_way_either(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache", 25 * KIB)
    for name in ("a", "b"):
        have(cache, name, MemoryRemote(files(seed=name))).release()
    with pytest.raises(CacheFullError):
        cache.ensure(wanted("c", MemoryRemote(files(seed="c"))), keep=("a", "b"))


def test_use_by_another_process_counts(cache: NodeCache, tmp_path: Path) -> None:
    have(cache, "m", MemoryRemote(files())).release()
    script = (
        "import sys; from pathlib import Path; from models.cache import NodeCache;"
        "lease = NodeCache(Path(sys.argv[1])).lease('m'); print('has it', flush=True); input()"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "cache")],
        env=os.environ | {"PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"has it\n"
        assert [cached.in_use for cached in cache.snapshots()] == [True]
        with pytest.raises(ConflictError, match="in use"):
            cache.remove("m")
        user.kill()  # and the kernel frees what it held
        user.wait()
        assert cache.remove("m") == 10 * KIB + 2


def test_removed_snapshot_leaves_what_others_have(cache: NodeCache, tmp_path: Path) -> None:
    have(cache, "one", MemoryRemote(files())).release()
    other = have(cache, "other", MemoryRemote(files() | {"config.json": b"{ }"}))
    assert cache.remove("one") == 2
    assert (other.folder / "model.safetensors").stat().st_size == 10 * KIB
    with pytest.raises(NotFoundError):
        cache.remove("one")


def test_many_at_once_fetch_once(tmp_path: Path) -> None:
    remote = MemoryRemote({"model.safetensors": os.urandom(100 * KIB)})
    caches = [NodeCache(tmp_path / "cache") for _ in range(8)]
    progresses = [Progress() for _ in caches]
    with ThreadPoolExecutor(8) as pool:
        leases = list(
            pool.map(
                lambda pair: pair[0].ensure(wanted("m", remote), pair[1]),
                zip(caches, progresses, strict=True),
            )
        )
    assert remote.reads == [("model.safetensors", 0)]
    assert len({lease.folder for lease in leases}) == 1
    assert sum(progress.fetched for progress in progresses) == 100 * KIB
    assert {(progress.done, progress.total) for progress in progresses} == {(100 * KIB, 100 * KIB)}


def test_who_waits_for_another_process_sees_how_far_it_is(tmp_path: Path) -> None:
    gate = threading.Event()
    remote = MemoryRemote({"model.safetensors": os.urandom(10_000)}, gate=gate)
    watching = Progress()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(NodeCache(tmp_path / "cache").ensure, wanted("m", remote))
        assert remote.reading.wait(10)
        second = pool.submit(NodeCache(tmp_path / "cache").ensure, wanted("m", remote), watching)
        _until(lambda: watching.done == 1000 and watching.total == 10_000)
        gate.set()
        assert first.result(10).folder == second.result(10).folder
    assert (watching.done, watching.total) == (10_000, 10_000)


def test_fetch_that_nobody_wants_ends_and_is_kept(cache: NodeCache, tmp_path: Path) -> None:
    gate, progress = threading.Event(), Progress()
    remote = MemoryRemote({"model.safetensors": os.urandom(10_000)}, gate=gate)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(cache.ensure, wanted("m", remote), progress)
        assert remote.reading.wait(10)
        progress.stop.set()
        gate.set()
        with pytest.raises(FetchCancelledError):
            work.result(10)
    (partial,) = (tmp_path / "cache" / "partial").iterdir()
    kept = partial.stat().st_size
    have(cache, "m", remote)
    assert remote.reads[-1] == ("model.safetensors", kept)


def _until(check: Callable[[], bool]) -> None:
    for _ in range(1000):
        if check():
            return
        time.sleep(0.01)
    raise AssertionError("it never came about")


def test_verify_drops_what_is_broken_and_the_next_use_fetches_that_alone(
    cache: NodeCache, tmp_path: Path
) -> None:
    remote = MemoryRemote(files())
    have(cache, "m", remote).release()
    assert cache.verify("m") == []
    blob = (tmp_path / "cache" / "snapshots" / "m" / "model.safetensors").resolve()
    before = blob.stat()
    blob.chmod(0o644)
    with blob.open("r+b") as stream:
        stream.write(b"?")
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk breaks: unseen
    assert [broken.path for broken in cache.verify("m")] == ["model.safetensors"]
    remote.reads.clear()
    lease = have(cache, "m", remote)
    assert remote.reads == [("model.safetensors", 0)]
    assert (lease.folder / "model.safetensors").read_bytes() == remote.files["model.safetensors"]
    assert cache.verify("m") == []


def test_blob_that_somebody_wrote_to_is_found_at_its_next_use(
    cache: NodeCache, tmp_path: Path
) -> None:
    remote = MemoryRemote(files())
    have(cache, "m", remote).release()
    blob = (tmp_path / "cache" / "snapshots" / "m" / "model.safetensors").resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"cut")
    lease = have(cache, "m", remote)
    assert (lease.folder / "model.safetensors").read_bytes() == remote.files["model.safetensors"]


def test_touched_blob_with_the_right_content_is_kept(cache: NodeCache, tmp_path: Path) -> None:
    remote = MemoryRemote(files())
    have(cache, "m", remote).release()
    os.utime((tmp_path / "cache" / "snapshots" / "m" / "model.safetensors").resolve())
    remote.reads.clear()
    have(cache, "m", remote)
    assert remote.reads == []


def test_broken_file_is_mended_under_those_who_use_it(cache: NodeCache, tmp_path: Path) -> None:
    remote = MemoryRemote(files())
    using = have(cache, "m", remote)
    (using.folder / "model.safetensors").resolve().unlink()
    have(cache, "m", remote)
    assert (using.folder / "model.safetensors").read_bytes() == remote.files["model.safetensors"]


def test_source_that_changed_does_not_mend(cache: NodeCache, tmp_path: Path) -> None:
    have(cache, "m", MemoryRemote(files(), checksums=False)).release()
    (tmp_path / "cache" / "snapshots" / "m" / "model.safetensors").resolve().unlink()
    with pytest.raises(ChangedError, match="not what it was"):
        have(cache, "m", MemoryRemote(files(seed="b"), checksums=False))


def test_leftovers_go_where_room_is_needed(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache", 25 * KIB, AT_ONCE)
    broken = MemoryRemote(files(20 * KIB, "x"), breaks_after=[0, 15_000, 0, 0, 0, 0])
    with pytest.raises(PlaceAwayError):
        have(cache, "never", broken)
    have(cache, "m", MemoryRemote(files(20 * KIB)))
    assert cache.used_bytes() == 20 * KIB + 2
    assert cache.clean() == 0


DISK_FULL = """
import sys
from pathlib import Path
from models.cache import NodeCache, Wanted
from models.cache_download import CacheFullError
from tests.models.memory_remote import MemoryRemote

root = Path(sys.argv[1])

class Greedy(MemoryRemote):
    def read(self, file, offset):
        with (root / "filler").open("wb") as filler:  # somebody else takes what was free
            try:
                while True:
                    filler.write(bytes(1 << 16))
            except OSError:
                pass
        yield from super().read(file, offset)

remote = Greedy({"model.safetensors": b"x" * (1 << 20)})
try:
    NodeCache(root / "cache").ensure(Wanted("m", "memory://m", lambda: remote))
except CacheFullError as exc:
    print("full:", exc)
folders = [root / "cache" / name for name in ("blobs", "partial", "snapshots")]
print("left:", [path.name for folder in folders for path in folder.iterdir()])
"""


@pytest.mark.parametrize("size", ["1m", "80m"], ids=["before", "meanwhile"])
def test_full_disk_is_told_and_nothing_is_left(tmp_path: Path, size: str) -> None:
    """On a real file system of that size, in a name space of its own."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare on this machine")
    steps = f'mount -t tmpfs -o size={size} none "$0" && exec "$1" -c "$SCRIPT" "$0"'
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", steps, str(tmp_path), sys.executable],
        env=os.environ | {"SCRIPT": DISK_FULL, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0 and "full:" not in done.stdout:
        pytest.skip(f"no name space with a file system of its own: {done.stderr.strip()[-200:]}")
    assert "full: the disk of the node cache is full" in done.stdout
    assert "left: []" in done.stdout
