"""Streams over two real engines: prompts find their cache, a long one is cut beside another
tenant's; engines hang and are killed under them, and nothing is lost that need not be.

`make test-long` has the long version.
"""

import asyncio
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp
import pytest
import yaml

from models.sources import BUILTINS
from serving.engine.shared_steps import CHUNK_TOKENS
from tests.platform.conftest import API_KEY, LONG
from tests.platform.platform import Platform, eventually
from tests.platform.test_cache_isolation import HITS, key_of
from tests.processes import pid_is_alive

pytestmark = pytest.mark.engine

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60" if LONG else "16"))
STREAMS = int(os.environ.get("CHAOS_STREAMS", "200" if LONG else "100"))
KILL_EACH_S = 5.0
HUNG_AFTER_S = 90.0
"""Without a byte. A whole stream may take longer, where the machine is busy."""
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


@pytest.fixture(scope="module")
def two_engines(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A model that always has two engines, which log each of their steps."""
    document = {
        "apiVersion": "penstock/v1", "kind": "Model", "name": NAME,
        "source": f"file://{BUILTINS['guide']}",
        "engine": {
            "max_num_seqs": 64, "kv_cache_gib": 0.06,
            "args": {"enable_logging_iteration_details": True},
        },
        "scaling": {"min": 2, "max": 2},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("storm") / "storm.yaml"
    path.write_text(yaml.safe_dump(document))
    done = platform.penstock("deploy", "-f", str(path))
    assert done.returncode == 0, done.stderr
    eventually(lambda: len(engines(platform)) == 2, 60, "two engines are ready")
    assert platform.is_listed(NAME)
    yield
    platform.delete(NAME)
    eventually(lambda: not engines(platform), 30, "its engines end")


async def stream(
    session: aiohttp.ClientSession, number: int, outcomes: Outcomes, max_tokens: int = 192
) -> None:
    """One stream, to its end."""
    question = {"role": "user", "content": f"What is Penstock? This is question {number}."}
    body = {
        "model": NAME, "stream": True, "messages": [question],
        "max_tokens": max_tokens, "ignore_eos": True,
    }  # fmt: skip
    lines: list[str] = []
    try:
        async with (
            asyncio.timeout(HUNG_AFTER_S) as patience,
            session.post("/v1/chat/completions", json=body) as answer,
        ):
            if answer.status != 200:
                outcomes.note("failed", f"{answer.status} {await answer.text()}")
                return
            async for line in answer.content:
                patience.reschedule(asyncio.get_running_loop().time() + HUNG_AFTER_S)
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


def session_of(platform: Platform, key: str = API_KEY) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        platform.url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=aiohttp.ClientTimeout(total=None),
        connector=aiohttp.TCPConnector(limit=0),
    )


async def complete(
    session: aiohttp.ClientSession,
    prompt: str,
    max_tokens: int = 1,
    begun: asyncio.Event | None = None,
    enough: asyncio.Event | None = None,
) -> None:
    """A completion to its end, or until somebody has had enough."""
    body = {"model": NAME, "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True,
            "stream": True}  # fmt: skip
    async with session.post("/v1/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        async for _ in answer.content:
            if begun is not None:
                begun.set()
            if enough is not None and enough.is_set():
                break


DOCUMENTS, TURNS = 20, 3


def document(name: str) -> str:
    """Two full blocks of vLLM's cache on CPUs, and a part of a third."""
    return f"Document {name}. " + "Tell me about hosts, engines and the gateway, please. " * 30


def test_prompts_find_their_cache_on_one_of_two_engines(
    platform: Platform, two_engines: None
) -> None:
    async def ask(*prompts: str) -> None:
        """One after the other: an engine that is idle takes its own, however much it did."""
        async with session_of(platform) as session:
            for prompt in prompts:
                await complete(session, prompt)

    def count(name: str) -> dict[str, float]:
        return platform.engine_metrics(NAME, name)

    def hits() -> float:
        return sum(count(HITS).values())

    asyncio.run(ask(document("one")))
    before = hits()
    asyncio.run(ask(document("one")))
    of_one = hits() - before  # what a prompt finds at most
    assert of_one > 0
    before, sent_before = hits(), count("vllm:prompt_tokens_total")
    for turn in range(TURNS):
        names = [f"{number:03d}" for number in range(DOCUMENTS)]
        asyncio.run(ask(*(f"{document(name)} Question {turn}?" for name in names)))
    found = (hits() - before) / (of_one * DOCUMENTS * (TURNS - 1))
    sent = [n - sent_before[engine] for engine, n in count("vllm:prompt_tokens_total").items()]
    print(f"hits {found:.3f} of one shared cache's; prompt tokens {sent}")
    assert found >= 0.9
    assert min(sent) > 0


STEP = re.compile(r"Iteration\(\d+\): (\d+) context requests, (\d+) context tokens")


def prompt_steps(platform: Platform) -> Counter[int]:
    """Steps by the prompt tokens that they computed, as the engines say in their logs."""
    logs = (platform.data_dir / "logs" / "engines").rglob("*.log")
    text = "\n".join(log.read_text(errors="replace") for log in logs)
    return Counter(int(tokens) for _, tokens in STEP.findall(text) if int(tokens))


def test_long_prompt_is_cut_beside_another_tenants_and_not_alone(
    platform: Platform, two_engines: None
) -> None:
    key = key_of(platform, "cut-beside")

    async def ask_alone() -> None:
        async with session_of(platform) as ours:
            await complete(ours, document("alone") * 2)

    async def ask_beside() -> int:
        """Another tenant streams on both engines while the long prompt comes."""
        enough = asyncio.Event()
        begun = [asyncio.Event() for _ in range(8)]
        async with session_of(platform) as ours, session_of(platform, key) as theirs:
            others = [
                asyncio.create_task(complete(theirs, f"{n} is short", 1900, one, enough))
                for n, one in enumerate(begun)
            ]
            async with asyncio.timeout(HUNG_AFTER_S):
                await asyncio.gather(*(one.wait() for one in begun))
            await complete(ours, document("beside") * 2)
            still = sum(not other.done() for other in others)
            enough.set()
            await asyncio.gather(*others)
        return still

    before = prompt_steps(platform)
    asyncio.run(ask_alone())
    eventually(
        lambda: max(prompt_steps(platform) - before, default=0) > CHUNK_TOKENS,
        10, "a step computes the whole prompt",
    )  # fmt: skip
    before = prompt_steps(platform)
    assert asyncio.run(ask_beside()) == 8, "the others were to stream meanwhile"
    eventually(
        lambda: CHUNK_TOKENS in prompt_steps(platform) - before, 10, "a step computes a piece"
    )
    steps = prompt_steps(platform) - before
    print(f"prompt tokens of the steps: {sorted(steps.elements())}")
    assert max(steps) == CHUNK_TOKENS


async def hang(platform: Platform, victim: int) -> Outcomes:
    """Streams that are under way when an engine stops, and some that come just after."""
    outcomes = Outcomes()
    async with session_of(platform) as session:
        streams = [asyncio.create_task(stream(session, n, outcomes, 800)) for n in range(24)]
        await asyncio.sleep(0.5)
        os.killpg(victim, signal.SIGSTOP)
        streams += [asyncio.create_task(stream(session, n, outcomes)) for n in range(24, 36)]
        await asyncio.gather(*streams)
    return outcomes


def test_engine_that_hangs_is_found_and_replaced_and_costs_only_streams_that_had_begun(
    platform: Platform, two_engines: None
) -> None:
    victim = int(str(engines(platform)[0]["pid"]))
    outcomes = asyncio.run(hang(platform, victim))
    counts = outcomes.counts
    odd = [what for what in outcomes.odd if not what.startswith("cut")]
    shown = f"{dict(counts)}: {odd[:5]}"
    print(shown)
    assert counts["complete"] >= 12, shown
    for kind in ("failed", "hung", "broken", "silent"):
        assert counts[kind] == 0, shown
    eventually(lambda: not pid_is_alive(victim), 30, "the engine that hangs is killed")
    eventually(lambda: len(engines(platform)) == 2, 60, "another takes its place")


async def storm(platform: Platform, pids: list[int]) -> Outcomes:
    """Streams without a pause, while one engine after the other dies."""
    outcomes = Outcomes()
    ends_s = time.monotonic() + SECONDS
    numbers = iter(range(10**9))
    async with session_of(platform) as session:

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
