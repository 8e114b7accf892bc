"""Streams over real engines that are killed under them: nothing is lost that need not be.

`make test-long` has the long version.
"""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import yaml

from models.sources import BUILTINS
from tests.platform.conftest import API_KEY, LONG
from tests.platform.platform import Platform, eventually
from tests.processes import pid_is_alive

pytestmark = pytest.mark.engine

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60" if LONG else "16"))
STREAMS = int(os.environ.get("CHAOS_STREAMS", "200" if LONG else "100"))
KILL_EACH_S = 5.0
HUNG_AFTER_S = 90.0
NAME = "storm"


@dataclass
class Outcomes:
    """How the streams ended."""

    counts: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)

    def note(self, kind: str, what: str = "") -> None:
        self.counts[kind] += 1
        if what:
            self.odd.append(f"{kind}: {what}")


def engines(platform: Platform) -> list[dict[str, object]]:
    found = [e for e in platform.items("engines") if e["model"] == NAME]
    return [engine for engine in found if engine["phase"] == "ready"]


@pytest.fixture
def two_engines(platform: Platform, tmp_path: Path):
    """A model that always has two engines."""
    document = {
        "apiVersion": "penstock/v1", "kind": "Model", "name": NAME,
        "source": f"file://{BUILTINS['guide']}",
        "engine": {"max_num_seqs": 64, "kv_cache_gib": 0.06},
        "scaling": {"min": 2, "max": 2},
    }  # fmt: skip
    path = tmp_path / "storm.yaml"
    path.write_text(yaml.safe_dump(document))
    done = platform.penstock("deploy", "-f", str(path))
    assert done.returncode == 0, done.stderr
    eventually(lambda: len(engines(platform)) == 2, 60, "two engines are ready")
    yield
    platform.penstock("delete", NAME)
    eventually(lambda: not engines(platform), 30, "its engines end")


async def stream(session: aiohttp.ClientSession, number: int, outcomes: Outcomes) -> None:
    """One stream, to its end."""
    question = {"role": "user", "content": f"What is Penstock? This is question {number}."}
    body = {
        "model": NAME, "stream": True, "messages": [question], "max_tokens": 192,
        "ignore_eos": True,
    }  # fmt: skip
    lines: list[str] = []
    try:
        async with (
            asyncio.timeout(HUNG_AFTER_S),
            session.post("/v1/chat/completions", json=body) as answer,
        ):
            if answer.status != 200:
                outcomes.note("failed", f"{answer.status} {await answer.text()}")
                return
            async for line in answer.content:
                lines += [line[6:].decode().strip()] if line.startswith(b"data: ") else []
    except TimeoutError:
        outcomes.note("hung", f"after {len(lines)} events")
        return
    except aiohttp.ClientError as exc:
        outcomes.note("broken" if lines else "failed", repr(exc))
        return
    events = [line for line in lines if line != "[DONE]"]
    if events and "error" in json.loads(events[-1]):
        outcomes.note("cut" if len(events) > 1 else "failed", events[-1])
    elif lines and lines[-1] == "[DONE]":
        outcomes.note("complete")
    else:
        outcomes.note("silent", f"ended after {lines[-1:]}")


async def storm(platform: Platform, pids: list[int]) -> Outcomes:
    """Streams without a pause, while one engine after the other dies."""
    outcomes = Outcomes()
    ends_s = time.monotonic() + SECONDS
    numbers = iter(range(10**9))
    timeout = aiohttp.ClientTimeout(total=None)
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with aiohttp.ClientSession(
        platform.url, headers=headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
    ) as session:

        async def visitor() -> None:
            while time.monotonic() < ends_s:
                await stream(session, next(numbers), outcomes)

        async def killer() -> None:
            while time.monotonic() < ends_s - 1:
                await asyncio.sleep(KILL_EACH_S)
                ready = await asyncio.to_thread(engines, platform)
                if ready:
                    victim = int(str(ready[len(pids) % len(ready)]["pid"]))
                    os.kill(victim, signal.SIGKILL)
                    pids.append(victim)

        await asyncio.gather(killer(), *(visitor() for _ in range(STREAMS)))
    return outcomes


def test_engines_killed_under_streams_cost_nobody_who_had_not_streamed(
    platform: Platform, two_engines: None
) -> None:
    killed: list[int] = []
    outcomes = asyncio.run(storm(platform, killed))
    counts = outcomes.counts
    odd = [what for what in outcomes.odd if not what.startswith("cut")]
    shown = f"{dict(counts)} after {len(killed)} kills: {odd[:5]}"
    print(shown)
    assert len(killed) >= 2
    assert counts["complete"] > STREAMS // 2, shown
    assert counts["cut"] > 0, shown
    for kind in ("failed", "hung", "broken", "silent"):
        assert counts[kind] == 0, shown
    eventually(lambda: len(engines(platform)) == 2, 60, "both engines are back")
    assert not any(pid_is_alive(pid) for pid in killed)
