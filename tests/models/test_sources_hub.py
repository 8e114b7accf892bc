"""Fetching from a hub with its own client's protocol, over a real connection on loopback."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models import sources
from models.cache import NodeCache
from models.cache_download import CorruptError, Patience
from models.cache_progress import Progress
from models.errors import PenstockError, SourceError
from models.remotes.listing import ChangedError, FetchError, PlaceAwayError
from models.remotes.objects import Door
from models.sources import Access
from tests.models.faulty import Faults
from tests.models.hub import COMMIT, hub
from tests.models.test_sources import write_model

AT_ONCE = Patience(tries=3, sleep=lambda _: None)
PAYLOAD = 3 << 20


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "repo", payload=PAYLOAD)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "code.py").write_text("raise SystemExit")
    (folder / "original").mkdir()
    (folder / "original" / "consolidated.safetensors").write_bytes(b"the same once more")
    return folder


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)


def at(endpoint: str, token: str | None = None) -> Access:
    return Access(door=Door(endpoint=endpoint, token=token))


def node(tmp_path: Path, bound: int | None = None) -> NodeCache:
    return NodeCache(tmp_path / "cache", bound, AT_ONCE)


def test_repository_is_pinned_to_its_commit(tmp_path: Path, repo: Path) -> None:
    with hub("acme/tiny", repo) as (endpoint, faults):
        found = sources.inspect("hf://acme/tiny@main", at(endpoint))
        assert found.source == f"hf://acme/tiny@{COMMIT}"
        assert sources.inspect("hf://acme/tiny", at(endpoint)).source == found.source
        assert found.config == {"architectures": ["Qwen3ForCausalLM"]}
        assert found.weight_bytes == (repo / "model.safetensors").stat().st_size
        assert "model.safetensors" not in faults.fetched()


def test_repository_is_fetched_once_and_without_pickles_or_code(tmp_path: Path, repo: Path) -> None:
    with hub("acme/tiny", repo) as (endpoint, faults):
        source, cache = f"hf://acme/tiny@{COMMIT}", node(tmp_path)
        folder = sources.have(source, at(endpoint), cache).folder
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        assert names == ["config.json", "model.safetensors"]
        for name in names:
            assert (folder / name).read_bytes() == (repo / name).read_bytes()
        before = len(faults.asked)
        assert sources.have(source, at(endpoint), cache).folder == folder
        assert len(faults.asked) == before, "a pinned source that is there needs no network"


def test_broken_connection_is_resumed_where_it_broke(tmp_path: Path, repo: Path) -> None:
    faults = Faults(cut={"model.safetensors": [1 << 20, 1 << 20]})
    with hub("acme/tiny", repo, faults=faults) as (endpoint, _):
        progress = Progress()
        folder = sources.have(
            f"hf://acme/tiny@{COMMIT}", at(endpoint), node(tmp_path), progress
        ).folder
        size = (repo / "model.safetensors").stat().st_size
        first, second, third = faults.ranges("model.safetensors")
        assert first == ""
        assert 0 < int(second.removeprefix("bytes=")[:-1]) <= 1 << 20
        assert int(second.removeprefix("bytes=")[:-1]) < int(third.removeprefix("bytes=")[:-1])
        assert progress.done == progress.total
        assert size == (folder / "model.safetensors").stat().st_size
        assert (folder / "model.safetensors").read_bytes() == (
            repo / "model.safetensors"
        ).read_bytes()


def test_fetch_goes_on_after_kill_9(tmp_path: Path, repo: Path) -> None:
    faults = Faults(stall={"model.safetensors": 2 << 20})
    script = (
        "import sys; from pathlib import Path; from models import sources;"
        "from models.cache import NodeCache; from models.remotes.objects import Door;"
        "sources.have(sys.argv[1], sources.Access(Door(endpoint=sys.argv[2])),"
        " NodeCache(Path(sys.argv[3])))"
    )
    with hub("acme/tiny", repo, faults=faults) as (endpoint, _):
        source = f"hf://acme/tiny@{COMMIT}"
        arguments = [sys.executable, "-c", script, source, endpoint, str(tmp_path / "cache")]
        root = str(Path(__file__).parents[2])
        with subprocess.Popen(arguments, env=os.environ | {"PYTHONPATH": root}) as fetcher:
            assert faults.stalled.wait(30)
            (partial,) = _until_it_holds(tmp_path / "cache" / "partial", 1 << 20)
            _until(lambda: bool(list((tmp_path / "cache" / "staging").glob("*/config.json"))))
            fetcher.send_signal(signal.SIGKILL)
        kept = partial.stat().st_size
        cache = node(tmp_path)
        assert cache.snapshots() == [], "nothing half-published"
        faults.go_on.set()
        folder = sources.have(source, at(endpoint), cache).folder
        assert faults.ranges("model.safetensors") == ["", f"bytes={kept}-"]
        assert faults.ranges("config.json") == [""], "a file that was complete is not asked again"
        assert (folder / "model.safetensors").read_bytes() == (
            repo / "model.safetensors"
        ).read_bytes()
        assert list((tmp_path / "cache" / "partial").iterdir()) == []


def _until_it_holds(folder: Path, size: int) -> list[Path]:
    """Waits for the other process to have written what it was sent."""
    found: list[Path] = []

    def is_large() -> bool:
        found[:] = []
        for path in folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # just completed
                if path.stat().st_size >= size:
                    found.append(path)
        return bool(found)

    _until(is_large)
    return found


def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_so():
            return
        signal.sigtimedwait([], 0.01)
    raise AssertionError("it did not come to be")


def test_corrupted_download_is_fetched_once_more(tmp_path: Path, repo: Path) -> None:
    faults = Faults(cut={"model.safetensors": [1 << 20]}, corrupt={"model.safetensors": 2})
    with hub("acme/tiny", repo, faults=faults) as (endpoint, _):
        with pytest.raises(CorruptError, match="checksum"):
            sources.have(f"hf://acme/tiny@{COMMIT}", at(endpoint), node(tmp_path))
        assert node(tmp_path).snapshots() == []
        # The lies are used up; what comes now is true.
        folder = sources.have(f"hf://acme/tiny@{COMMIT}", at(endpoint), node(tmp_path)).folder
        assert (folder / "model.safetensors").read_bytes() == (
            repo / "model.safetensors"
        ).read_bytes()


def test_corrupted_small_file_is_found_by_gits_hash(tmp_path: Path, repo: Path) -> None:
    faults = Faults(corrupt={"config.json": 1})
    with (
        hub("acme/tiny", repo, faults=faults) as (endpoint, _),
        pytest.raises(CorruptError, match=r"config\.json"),
    ):
        sources.have(f"hf://acme/tiny@{COMMIT}", at(endpoint), node(tmp_path))


def test_corruption_of_what_an_earlier_process_left_is_mended(tmp_path: Path, repo: Path) -> None:
    faults = Faults(cut={"model.safetensors": [1 << 20] * 3})
    one_try = NodeCache(tmp_path / "cache", None, Patience(tries=1))
    with hub("acme/tiny", repo, faults=faults) as (endpoint, _):
        source = f"hf://acme/tiny@{COMMIT}"
        with pytest.raises(PlaceAwayError, match=r"broke off|could not be fetched"):
            sources.have(source, at(endpoint), one_try)
        (partial,) = (tmp_path / "cache" / "partial").iterdir()
        partial.write_bytes(b"x" * partial.stat().st_size)
        faults.cut.clear()
        folder = sources.have(source, at(endpoint), node(tmp_path)).folder
        assert (folder / "model.safetensors").read_bytes() == (
            repo / "model.safetensors"
        ).read_bytes()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf://acme/none", "does not exist"),
        ("hf://acme/tiny@gone", "no revision 'gone'"),
        ("hf://not a repo/../x", "could not be fetched"),
    ],
)
def test_what_the_hub_does_not_have_is_told(repo: Path, source: str, message: str) -> None:
    with hub("acme/tiny", repo) as (endpoint, _), pytest.raises(SourceError, match=message):
        sources.inspect(source, at(endpoint))


def test_revision_that_vanished_since_its_deploy_is_told(tmp_path: Path, repo: Path) -> None:
    with (
        hub("acme/tiny", repo, revisions=frozenset({None, "main"})) as (endpoint, _),
        pytest.raises(ChangedError, match="no revision") as caught,
    ):
        sources.have(f"hf://acme/tiny@{COMMIT}", at(endpoint), node(tmp_path))
    assert "deploy a revision that is there" in str(caught.value.hint)


def test_gated_repository_without_a_token_says_so_at_the_deploy(repo: Path) -> None:
    with hub("acme/tiny", repo, token="hf_secret", gated=True) as (endpoint, _):
        with pytest.raises(FetchError, match="gated, and there is no token") as caught:
            sources.inspect("hf://acme/tiny", at(endpoint))
        assert "HF_TOKEN" in str(caught.value.hint)
        assert sources.inspect("hf://acme/tiny", at(endpoint, "hf_secret")).config


def test_token_of_the_environment_counts(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub("acme/tiny", repo, token="hf_secret") as (endpoint, _):
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        assert sources.have("hf://acme/tiny", at(endpoint), node(tmp_path)).folder.is_dir()


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_wrong_token_is_told_and_never_shown(repo: Path, token: str | None) -> None:
    with hub("acme/tiny", repo, token="hf_secret") as (endpoint, _):
        with pytest.raises(FetchError, match="token") as caught:
            sources.inspect("hf://acme/tiny", at(endpoint, token))
        assert "hf_wrong" not in f"{caught.value} {caught.value.hint}"


def test_unreachable_hub_is_told() -> None:
    with pytest.raises(PenstockError, match="could not be fetched"):
        sources.inspect("hf://a/b", at("http://127.0.0.1:9"))
