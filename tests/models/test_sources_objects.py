"""Object stores over real connections: S3 as moto speaks it, GCS's XML API."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models import sources
from models.cache import NodeCache
from models.cache_download import CorruptError, Patience
from models.cache_progress import Progress
from models.remotes.listing import ChangedError, FetchError, PlaceAwayError
from models.remotes.objects import Door
from models.sources import Access
from tests.models.buckets import BUCKET, KEY_ID, SECRET, Store, gcs, s3
from tests.models.test_sources import write_model

AT_ONCE = Patience(tries=3, sleep=lambda _: None)
SOURCE = f"s3://{BUCKET}/tiny"


@pytest.fixture(scope="module")
def running_store() -> Iterator[Store]:
    with s3() as store:
        yield store


@pytest.fixture
def store(running_store: Store, tmp_path: Path) -> Store:
    """The store with a model in it, and with nothing that goes wrong."""
    running_store.put("tiny", write_model(tmp_path / "repo", payload=3 << 20))
    running_store.faults.asked.clear()
    running_store.faults.cut.clear()
    running_store.faults.corrupt.clear()
    return running_store


def at(store: Store, *, secret: str = SECRET, key: str = KEY_ID) -> Access:
    return Access(
        door=Door(
            endpoint=store.url, region="us-east-1", access_key_id=key, secret_access_key=secret
        )
    )


def node(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", patience=AT_ONCE)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_prefix_is_pinned_fetched_and_found_again(store: Store, tmp_path: Path) -> None:
    found = sources.inspect(SOURCE, at(store))
    assert found.source.startswith(f"{SOURCE}#")
    assert found.config == {"architectures": ["Qwen3ForCausalLM"]}
    folder = sources.have(found.source, at(store), node(tmp_path)).folder
    assert weights(folder) == weights(tmp_path / "repo")
    before = len(store.faults.asked)
    assert sources.have(found.source, at(store), node(tmp_path)).folder == folder
    assert len(store.faults.asked) == before


def test_broken_connection_is_resumed(store: Store, tmp_path: Path) -> None:
    store.faults.cut["model.safetensors"] = [1 << 20, 1 << 20]
    progress = Progress()
    folder = sources.have(SOURCE, at(store), node(tmp_path), progress).folder
    assert weights(folder) == weights(tmp_path / "repo")
    ranges = store.faults.ranges("model.safetensors")
    assert len(ranges) == 3
    starts = [int(asked.removeprefix("bytes=").partition("-")[0]) for asked in ranges[1:]]
    assert 0 < starts[0] < starts[1], "each goes on where the one before broke off"
    assert progress.fetched == progress.total


def test_next_process_goes_on_with_what_is_there(store: Store, tmp_path: Path) -> None:
    store.faults.cut["model.safetensors"] = [1 << 20, *[0] * 20]
    with pytest.raises(PlaceAwayError):
        sources.have(SOURCE, at(store), node(tmp_path))
    store.faults.cut.clear()
    (partial,) = (tmp_path / "cache" / "partial").iterdir()
    kept = partial.stat().st_size
    assert kept > 0
    store.faults.asked.clear()
    folder = sources.have(SOURCE, at(store), node(tmp_path)).folder
    assert weights(folder) == weights(tmp_path / "repo")
    assert store.faults.ranges("model.safetensors") == [f"bytes={kept}-"]


def test_corrupted_download_is_told_by_the_md5_of_the_etag(store: Store, tmp_path: Path) -> None:
    store.faults.corrupt["model.safetensors"] = 1
    with pytest.raises(CorruptError, match="checksum"):
        sources.have(SOURCE, at(store), node(tmp_path))
    assert node(tmp_path).snapshots() == []
    folder = sources.have(SOURCE, at(store), node(tmp_path)).folder
    assert weights(folder) == weights(tmp_path / "repo")


def test_objects_that_changed_since_the_deploy_are_refused(store: Store, tmp_path: Path) -> None:
    pinned = sources.inspect(SOURCE, at(store)).source
    store.put("tiny", write_model(tmp_path / "other", payload=64))
    with pytest.raises(ChangedError, match="not what it was at the deploy"):
        sources.have(pinned, at(store), node(tmp_path))
    with pytest.raises(ChangedError):
        sources.inspect(pinned, at(store))
    assert sources.inspect(SOURCE, at(store)).source != pinned


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (f"s3://{BUCKET}/none", "holds nothing"),
        ("s3://no-such-bucket/tiny", "there is no bucket"),
    ],
)
def test_what_is_not_there_is_told(store: Store, source: str, says: str) -> None:
    with pytest.raises(FetchError, match=says):
        sources.inspect(source, at(store))


def test_wrong_key_is_told_and_never_shown(store: Store) -> None:
    with pytest.raises(FetchError, match="may not be read with these keys") as caught:
        sources.inspect(SOURCE, at(store, key="AKIAWRONG", secret="wrong-secret"))
    assert "wrong-secret" not in f"{caught.value} {caught.value.hint}"
    assert "AKIAWRONG" not in f"{caught.value} {caught.value.hint}"


def test_gcs_is_read_the_same_way(tmp_path: Path) -> None:
    repo = write_model(tmp_path / "bucket" / "tiny", payload=3 << 20)
    with gcs(tmp_path / "bucket", token="ya29.test") as (url, faults):
        access = Access(door=Door(endpoint=url, token="ya29.test"))
        pinned = sources.inspect(f"gs://{BUCKET}/tiny", access).source
        faults.cut["model.safetensors"] = [1 << 20]
        folder = sources.have(pinned, access, node(tmp_path)).folder
        assert weights(folder) == weights(repo)
        assert len(faults.ranges("model.safetensors")) == 2
        with pytest.raises(FetchError, match="may not be read"):
            sources.inspect(f"gs://{BUCKET}/tiny", Access(door=Door(endpoint=url, token="no")))
