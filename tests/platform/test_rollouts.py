"""Rollouts on real engines: revisions whose answers tell them apart, under load."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import yaml

from tests.platform.conftest import API_KEY, LONG
from tests.platform.platform import PENSTOCK, Platform, eventually

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
CLIENTS = 50
MOVES = 10 if LONG else 4
SHARED = 480
ENGINE = {"max_num_seqs": 32, "kv_cache_gib": 0.03, "max_model_len": 256}
MAKE = """
import sys
from pathlib import Path
from make_model import make
folder, *names = map(Path, sys.argv[1:])
for seed, name in enumerate(names):
    make(folder / name, 1, seed)
"""
"""One process for both: most of its time goes into torch's import."""
FAULTS = {"slow": "tests.platform.faults:Slow", "failing": "tests.platform.faults:Failing"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models of one shape that say different things."""
    folder = tmp_path_factory.mktemp("weights")
    names = ("red", "blue")
    done = subprocess.run(
        [sys.executable, "-c", MAKE, folder, *names], cwd=ROOT / "scripts",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: folder / name for name in names}


@pytest.fixture
def name(platform: Platform) -> Iterator[str]:
    yield "painted"
    platform.delete("painted")
    eventually(
        lambda: not [e for e in platform.items("engines") if e["model"] == "painted"],
        30,
        "engines of the deleted model end",
    )


def deploy(
    platform: Platform, folder: Path, name: str, source: Path, *flags: str, **fields: Any
) -> None:
    path = written(folder, name, source, **fields)
    done = platform.penstock("deploy", "-f", str(path), *flags)
    assert done.returncode == 0, done.stderr
    assert platform.is_listed(name)


def written(folder: Path, name: str, source: Path, **fields: Any) -> Path:
    document = {
        "name": name,
        "source": source.as_uri(),
        "engine": ENGINE,
        "scaling": {"min": 1, "max": 1, "idle_timeout_s": 600},
        **fields,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@asynccontextmanager
async def tenant(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(
        base_url=platform.url, headers=headers, timeout=60, limits=limits, trust_env=False
    ) as http:
        yield http


async def say(http: httpx.AsyncClient, name: str, tokens: int = 4) -> str:
    """What the model says to the same words each time, streamed."""
    body = {"model": name, "prompt": "paint", "max_tokens": tokens, "temperature": 0,
            "stream": True, "ignore_eos": True}  # fmt: skip
    said = ""
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        ended = False
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                ended = True
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                assert "error" not in event, event
                said += event["choices"][0]["text"]
        assert ended
    return said


def rollout(platform: Platform, name: str) -> dict[str, Any]:
    """How far it is now."""
    headers = {"Authorization": f"Bearer {platform.admin_key}"}
    path = f"{platform.url}/admin/v1/models/{name}/rollout"
    answer = httpx.get(path, headers=headers, timeout=30, trust_env=False)
    assert answer.is_success, answer.text
    return dict(answer.json())


def rolled_out(platform: Platform, name: str) -> dict[str, Any]:
    """How far it is at its end."""
    done = platform.penstock("rollout", "status", name, "--output", "json", "--wait", "60")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


async def test_rollouts_and_undos_under_load_fail_no_request(
    platform: Platform, name: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    deploy(platform, tmp_path, name, weights["red"])
    heard: Counter[str] = Counter()
    over = asyncio.Event()

    async def client(http: httpx.AsyncClient) -> None:
        while not over.is_set():
            heard[await say(http, name)] += 1
            await asyncio.sleep(0.1)

    async with tenant(platform) as http, asyncio.TaskGroup() as clients:
        red = await say(http, name)
        for _ in range(CLIENTS):
            clients.create_task(client(http))
        try:
            for move in range(MOVES):
                if move % 2:
                    done = await asyncio.to_thread(platform.penstock, "rollout", "undo", name)
                    assert done.returncode == 0, done.stderr
                else:
                    colour = ("blue", "red")[(move // 2) % 2]
                    await asyncio.to_thread(
                        deploy, platform, tmp_path, name, weights[colour], "--no-wait"
                    )
                view = await asyncio.to_thread(rolled_out, platform, name)
                assert view["done"]
        finally:
            over.set()
    assert len(heard) == 2
    assert heard[red] > 0
    assert sum(heard.values()) > CLIENTS


async def test_canary_gets_its_share_and_is_promoted_where_it_is_no_worse(
    platform: Platform, name: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    deploy(platform, tmp_path, name, weights["red"])
    canary = {
        "steps": [25, 100], "step_s": 1, "min_requests": 100,
        "gate": {"ttft_p95": 20, "tpot_p95": 20},
    }  # fmt: skip
    async with tenant(platform) as http:
        red = await say(http, name)
        deploy(platform, tmp_path, name, weights["blue"], "--no-wait", rollout={"canary": canary})
        assert platform.penstock("rollout", "pause", name).returncode == 0
        await ready(platform, name)
        for _ in range(60):  # until the gateway knows of it too
            first = await asyncio.gather(*(say(http, name, 1) for _ in range(24)))
            if not all(red.startswith(said) for said in first):
                break
        heard: Counter[str] = Counter()
        for _ in range(SHARED // 24):
            heard.update(await asyncio.gather(*(say(http, name, 1) for _ in range(24))))
        first_words = {said: count for said, count in heard.items() if not red.startswith(said)}
        assert sum(first_words.values()) / heard.total() == pytest.approx(0.25, abs=0.03)
        assert platform.penstock("rollout", "resume", name).returncode == 0
        for _ in range(20):
            await asyncio.gather(*(say(http, name) for _ in range(24)))
            if rollout(platform, name)["canary"] is None:
                break
        view = await asyncio.to_thread(rolled_out, platform, name)
        assert (view["canary"], view["done"]) == (None, True)
        assert await say(http, name) != red


@pytest.mark.parametrize("fault", FAULTS)
async def test_canary_whose_engine_is_at_fault_is_rolled_back_in_its_first_step(
    platform: Platform, name: str, weights: dict[str, Path], tmp_path: Path, fault: str
) -> None:
    deploy(platform, tmp_path, name, weights["red"])
    canary = {"steps": [25, 100], "step_s": 600, "min_requests": 20}
    engine = ENGINE | {"args": {"logits_processors": FAULTS[fault]}}
    retried = retries(platform, name)
    async with tenant(platform) as http:
        red = await say(http, name)
        deploy(platform, tmp_path, name, weights["blue"], engine=engine, rollout={"canary": canary})
        heard: Counter[str] = Counter()
        for _ in range(60):
            heard.update(await asyncio.gather(*(say(http, name) for _ in range(12))))
            if rollout(platform, name)["canary"] is None:
                break
        view = await asyncio.to_thread(rolled_out, platform, name)
        assert (view["canary"], view["done"]) == (None, True)
        assert await say(http, name) == red
    saw = retries(platform, name) - retried if fault == "failing" else heard.total() - heard[red]
    assert 20 <= saw <= 0.25 * heard.total() + 1
    events = [event["message"] for event in platform.items("events") if event["model"] == name]
    why = {"slow": "p95 is", "failing": "100.0% of"}[fault]
    assert any(why in said and "gives way to revision" in said for said in events)


@pytest.mark.skipif(not LONG, reason="long: set LONG_TESTS=1")
@pytest.mark.parametrize("fault", ["bad argument", "cut weights"])
async def test_revision_that_cannot_start_is_told_of_and_the_old_one_serves_on(
    platform: Platform, name: str, weights: dict[str, Path], tmp_path: Path, fault: str
) -> None:
    deploy(platform, tmp_path, name, weights["red"])
    source, engine = weights["blue"], dict[str, Any](ENGINE)
    if fault == "bad argument":
        engine["args"], says = {"no_such_thing": 1}, "--no-such-thing=1"
    else:
        source, says = tmp_path / "cut", "model.safetensors"
        shutil.copytree(weights["blue"], source)
        cut = source / "model.safetensors"
        cut.write_bytes(cut.read_bytes()[:-1000])
    # As a canary: the pool may have no free host, and then an old engine goes first.
    trial = {"canary": {"steps": [50, 100], "step_s": 600}}
    path = written(tmp_path, name, source, engine=engine, rollout=trial)
    async with tenant(platform) as http:
        red = await say(http, name)
        with subprocess.Popen(
            [str(PENSTOCK), "deploy", "-f", str(path)],
            env=platform.environment, stderr=subprocess.PIPE, text=True,
        ) as waiting:  # fmt: skip
            assert waiting.stderr is not None
            lines = [(time.time(), line) async for line in in_thread(waiting.stderr)]
        assert waiting.returncode == 6, lines
        heard_at = next(at for at, line in lines if says in line and "warning" not in line)

        def is_back() -> bool:
            return rollout(platform, name)["done"] is True

        await asyncio.to_thread(eventually, is_back, 30, "the old revision is the current one")
        assert await say(http, name) == red
    failed = [e for e in platform.items("events") if e["model"] == name and says in e["message"]]
    took_s = heard_at - datetime.fromisoformat(failed[0]["at"]).timestamp()
    assert took_s < 5, lines
    described = platform.penstock("describe", name)
    assert says in described.stdout
    assert "did not start" in described.stdout


async def in_thread(lines: IO[str]) -> AsyncIterator[str]:
    """The lines of a pipe, while the loop goes on."""
    while line := await asyncio.to_thread(lines.readline):
        yield line


def retries(platform: Platform, name: str) -> int:
    """Requests of a model that an engine failed on, and another one was asked for."""
    text = httpx.get(f"{platform.url}/metrics", timeout=30, trust_env=False).text
    found = re.search(rf'^penstock_upstream_retries_total{{model="{name}"}} (\S+)$', text, re.M)
    return int(float(found[1])) if found else 0


async def ready(platform: Platform, name: str) -> None:
    """The revision that was deployed last has an engine."""
    revision = rollout(platform, name)["revision"]

    def there() -> bool:
        found = [e for e in platform.items("engines") if e["model"] == name]
        return any(e["revision"] == revision and e["phase"] == "ready" for e in found)

    await asyncio.to_thread(eventually, there, 60, f"revision {revision} is ready")
