"""A host's side of the node cache: what it fetches beforehand, and what a start waits for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from models.cache import NodeCache
from models.cache_download import Patience
from models.manifest import Manifest, parse_manifest
from models.secrets import Secrets
from serving.engine.weights import NodeWeights, read_ahead
from serving.protocol import FetchReport
from tests.models.faulty import Faults
from tests.models.hub import COMMIT, hub
from tests.models.test_sources import write_model

AT_ONCE = Patience(tries=2, sleep=lambda _: None)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return write_model(tmp_path / "repo", payload=1 << 20)


@pytest.fixture
async def weights(tmp_path: Path) -> AsyncIterator[NodeWeights]:
    weights = NodeWeights(NodeCache(tmp_path / "cache", patience=AT_ONCE), Secrets())
    yield weights
    await weights.close()


def tiny(endpoint: str, name: str = "tiny", revision: str = COMMIT) -> Manifest:
    source = f"hf://acme/tiny@{revision}"
    return parse_manifest({"name": name, "source": source, "weights": {"endpoint": endpoint}})


async def until_told(weights: NodeWeights, model: str) -> FetchReport:
    """Waits until a model is fetched beforehand, or was tried to."""
    async with asyncio.timeout(60):
        while True:
            for fetch in weights.fetches():
                if fetch.model == model and (fetch.done or fetch.error):
                    return fetch
            await asyncio.sleep(0.01)


async def test_start_finds_what_was_fetched_beforehand(weights: NodeWeights, repo: Path) -> None:
    with hub("acme/tiny", repo) as (endpoint, faults):
        weights.want((tiny(endpoint),))
        told = await until_told(weights, "tiny")
        assert (told.done, told.error) == (True, None)
        before = len(faults.asked)
        have = await weights.have(tiny(endpoint))
        assert (have.folder / "model.safetensors").exists()
        assert len(faults.asked) == before
        have.release()


async def test_start_waits_for_the_fetch_that_runs(weights: NodeWeights, repo: Path) -> None:
    faults = Faults(stall={"model.safetensors": 1 << 19})
    with hub("acme/tiny", repo, faults=faults) as (endpoint, _):
        weights.want((tiny(endpoint),))
        assert await asyncio.to_thread(faults.stalled.wait, 10)
        start = asyncio.create_task(weights.have(tiny(endpoint)))
        await asyncio.sleep(0.1)
        assert not start.done()
        faults.go_on.set()
        (await start).release()
        assert faults.ranges("model.safetensors") == [""]


async def test_start_that_is_cancelled_ends_its_fetch(weights: NodeWeights, repo: Path) -> None:
    faults = Faults(stall={"model.safetensors": 1 << 19})
    with hub("acme/tiny", repo, faults=faults) as (endpoint, _):
        start = asyncio.create_task(weights.have(tiny(endpoint)))
        assert await asyncio.to_thread(faults.stalled.wait, 10)
        (told,) = weights.fetches()
        assert (told.model, told.total_bytes > 1 << 20, told.done) == ("tiny", True, False)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        faults.go_on.set()
        assert weights.fetches() == ()


async def test_failure_is_told_and_a_new_model_does_not_wait_for_the_next_try(
    weights: NodeWeights, repo: Path
) -> None:
    with hub("acme/tiny", repo) as (endpoint, _):
        gone = tiny(endpoint, "gone", "f" * 40)
        weights.want((gone,))
        told = await until_told(weights, "gone")
        assert told.error is not None
        assert "no revision" in told.error
        weights.want((gone, tiny(endpoint)))
        assert (await until_told(weights, "tiny")).done


async def test_model_whose_secret_is_gone_fails_alone(weights: NodeWeights, repo: Path) -> None:
    keys = {"access_key_id": "${secret:GONE}", "secret_access_key": "${secret:GONE}"}
    locked = parse_manifest({"name": "locked", "source": "s3://b/m#" + "0" * 64, "weights": keys})
    with hub("acme/tiny", repo) as (endpoint, _):
        weights.want((locked, tiny(endpoint)))
        assert (await until_told(weights, "tiny")).done
        assert "no secret GONE" in str((await until_told(weights, "locked")).error)


async def test_local_models_are_not_fetched(weights: NodeWeights, repo: Path) -> None:
    weights.want((parse_manifest({"name": "local", "source": f"file://{repo}"}),))
    assert weights.fetches() == ()
    have = await weights.have(parse_manifest({"name": "local", "source": f"file://{repo}"}))
    assert have.folder == repo


def test_reading_ahead_counts_the_weights(repo: Path) -> None:
    assert read_ahead(repo) == (repo / "model.safetensors").stat().st_size
