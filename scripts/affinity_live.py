"""`make bench-affinity BENCH_FLAGS=--live`: two real engines, and vLLM's own count of its hits.

Rows of the trace whose prompts fit the built-in model's context, with lengths divided by SCALE, so
that a block of the trace is a block of vLLM's cache on CPUs. WORKERS send them in the trace's
order, each the next one as soon as its last is answered: through the gateway, for FIRST_WAY_S at
most; then the same ones straight to the engines, in turn and to the one with the fewest outstanding
tokens. Each way has a cache salt of its own, as each organisation has at the gateway. What is "of
shared" is a part of what one cache that forgets nothing would hit, which the trace alone tells.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from loadtests.recordings import Row
from models.sources import BUILTINS
from scripts.own_platform import BenchError, Platform, platform

NAME = "affinity"
SCALE = 4
BLOCK_TOKENS = 512 // SCALE
"""Of a block of the trace, scaled; vLLM's own on CPUs has as many."""
LONGEST_TOKENS = 1800
OUTPUT_TOKENS = 8
WORKERS = 16
ENGINES = 2
READY_WITHIN_S = 120.0
FIRST_WAY_S = 75.0
"""The other two ways, which hit less, take up to twice as long."""

FIRST_TOKEN, TOKENS = 300, 500
"""Token ids that prompts are made of: all of them are words of the built-in model."""

HITS, QUERIES, PROMPTS = (
    "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total", "vllm:prompt_tokens_total",
)  # fmt: skip

MANIFEST = {
    "apiVersion": "penstock/v1", "kind": "Model", "name": NAME,
    "source": f"file://{BUILTINS['guide']}",
    "engine": {"max_num_seqs": 32, "kv_cache_gib": 0.75}, "resources": {"memory_gib": 3},
    "scaling": {"min": ENGINES, "max": ENGINES},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Engine:
    """Where an engine answers."""

    engine_id: str
    url: str
    token: str


@dataclass(frozen=True, slots=True)
class Way:
    """How one way of choosing an engine did, by the engines' counters."""

    name: str
    prompts: int
    hit_rate: float
    of_shared: float
    balance: float
    """Prompt tokens of the engine that got most, over the mean."""
    computed_balance: float
    """Without those that came out of the caches."""


Pick = Callable[[int], int]
"""Gets a prompt's tokens, gives an engine's number."""


def prompt_of(row: Row) -> list[int]:
    """The row's prompt in tokens: equal blocks are equal."""
    length = row.prompt_tokens // SCALE
    tokens: list[int] = []
    for block in row.block_ids:
        name = (block // TOKENS**2 % TOKENS, block // TOKENS % TOKENS, block % TOKENS)
        tokens += [FIRST_TOKEN + name[at % 3] for at in range(BLOCK_TOKENS)]
    return tokens[:length]


def fitting(rows: Sequence[Row], most: int) -> list[Row]:
    """The first rows whose prompts fit, at most so many."""
    fit = [row for row in rows if BLOCK_TOKENS < row.prompt_tokens // SCALE <= LONGEST_TOKENS]
    return fit[:most]


def shared_hits(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that one cache would have, which forgets nothing; vLLM computes at least one."""
    seen: set[tuple[int, ...]] = set()
    hits = 0
    for prompt in prompts:
        ends = range(BLOCK_TOKENS, len(prompt) + 1, BLOCK_TOKENS)
        chains = [tuple(prompt[:end]) for end in ends]
        known = next((n for n, chain in enumerate(chains) if chain not in seen), len(chains))
        hits += min(known, (len(prompt) - 1) // BLOCK_TOKENS) * BLOCK_TOKENS
        seen.update(chains)
    return hits


async def engines_of(running: Platform, session: aiohttp.ClientSession) -> list[Engine]:
    """The model's engines, as gateways are told them."""
    ports = running.state["ports"]
    assert isinstance(ports, dict)
    token = (running.data_dir / "internal-token").read_text().strip()
    url = f"http://127.0.0.1:{ports['controller']}/internal/v1/routes?after=0"
    async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
        routes = await answer.json()
    return [
        Engine(one["engine_id"], one["url"], one["token"])
        for model in routes["models"] if model["name"] == NAME
        for one in model["endpoints"]
    ]  # fmt: skip


async def count(session: aiohttp.ClientSession, engine: Engine) -> dict[str, float]:
    """The engine's counters of its cache."""
    headers = {"Authorization": f"Bearer {engine.token}"}
    async with session.get(f"{engine.url}/metrics", headers=headers) as answer:
        lines = (await answer.text()).splitlines()
    return {
        name: sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))
        for name in (HITS, QUERIES, PROMPTS)
    }


async def send_all(
    session: aiohttp.ClientSession,
    prompts: Sequence[list[int]],
    targets: Sequence[tuple[str, str]],
    pick: Pick,
    done: Callable[[int, int], None],
    salt: str | None,
    within_s: float,
) -> int:
    """Sends the prompts, WORKERS at a time, each to the URL and with the token of its target; none
    after `within_s`. Returns how many."""
    coming: Iterator[list[int]] = iter(prompts)
    until_s = time.monotonic() + within_s
    sent = 0

    async def work() -> None:
        nonlocal sent
        while time.monotonic() < until_s and (prompt := next(coming, None)) is not None:
            sent += 1
            at = pick(len(prompt))
            url, token = targets[at]
            body: dict[str, object] = {"model": NAME, "prompt": prompt, "max_tokens": OUTPUT_TOKENS}
            if salt is not None:
                body["cache_salt"] = salt
            headers = {"Authorization": f"Bearer {token}"}
            async with session.post(f"{url}/v1/completions", json=body, headers=headers) as answer:
                if answer.status != 200:
                    raise BenchError(f"{answer.status}: {await answer.text()}")
                await answer.read()
            done(at, len(prompt))

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return sent


async def measure(
    name: str, session: aiohttp.ClientSession, engines: Sequence[Engine],
    prompts: Sequence[list[int]], targets: Sequence[tuple[str, str]], pick: Pick,
    done: Callable[[int, int], None] = lambda _at, _tokens: None, salt: str | None = None,
    within_s: float = float("inf"),
) -> Way:  # fmt: skip
    """Sends the prompts one way, and reads the engines' counters around it."""
    began_s = time.monotonic()
    before = [await count(session, engine) for engine in engines]
    prompts = prompts[: await send_all(session, prompts, targets, pick, done, salt, within_s)]
    after = [await count(session, engine) for engine in engines]
    grown = [{key: b[key] - a[key] for key in a} for a, b in zip(before, after, strict=True)]
    hits = sum(one[HITS] for one in grown)
    sent = [one[PROMPTS] for one in grown]
    computed = [one[PROMPTS] - one[HITS] for one in grown]
    took_s = time.monotonic() - began_s
    sys.stderr.write(f"{name}: {len(prompts)} prompts in {took_s:.0f} s\n")
    return Way(
        name, len(prompts), hits / sum(one[QUERIES] for one in grown),
        hits / max(1, shared_hits(prompts)),
        max(sent) * len(sent) / sum(sent), max(computed) * len(computed) / sum(computed),
    )  # fmt: skip


async def ways(running: Platform, prompts: Sequence[list[int]]) -> list[Way]:
    """All ways, one after the other, over the same engines."""
    key = running.environment["PENSTOCK_API_KEY"]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        deadline_s = time.monotonic() + READY_WITHIN_S
        while len(engines := await engines_of(running, session)) < ENGINES:
            if time.monotonic() > deadline_s:
                raise BenchError(f"{len(engines)} engines are ready, not {ENGINES}")
            await asyncio.sleep(0.2)
        direct = [(engine.url, engine.token) for engine in engines]
        turn = iter(range(len(prompts)))
        outstanding = [0] * ENGINES

        def fewest(tokens: int) -> int:
            at = outstanding.index(min(outstanding))
            outstanding[at] += tokens
            return at

        def over(at: int, tokens: int) -> None:
            outstanding[at] -= tokens

        through = [(running.url, key)]
        first = await measure("prefix affinity", session, engines, prompts, through, lambda _: 0,
                              within_s=FIRST_WAY_S)  # fmt: skip
        prompts = prompts[: first.prompts]
        return [
            first,
            await measure("fewest tokens", session, engines, prompts, direct, fewest, over, "few"),
            await measure("round robin", session, engines, prompts, direct,
                          lambda _: next(turn) % ENGINES, salt="turn"),
        ]  # fmt: skip


def run(rows: Sequence[Row], most: int) -> list[Way]:
    """Starts a platform with two engines, measures all ways, and stops it.

    Raises:
        BenchError: The platform does not start, or refuses a request.
    """
    prompts = [prompt_of(row) for row in fitting(rows, most)]
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder,
        platform(Path(folder)) as running,
    ):
        file = Path(folder) / f"{NAME}.yaml"
        file.write_text(yaml.safe_dump(MANIFEST))
        running.penstock("deploy", "-f", str(file), url=running.url)
        return asyncio.run(ways(running, prompts))


def json_line(found: Sequence[Way]) -> str:
    """What the benchmark ends with."""
    ours = found[0]
    return json.dumps({
        "bench": "affinity_live",
        "requests": ours.prompts,
        "engines": ENGINES,
        "hit_rate": {way.name: round(way.hit_rate, 4) for way in found},
        "of_shared": {way.name: round(way.of_shared, 4) for way in found},
        "balance": {way.name: round(way.balance, 4) for way in found},
        "balance_computed": {way.name: round(way.computed_balance, 4) for way in found},
        "met": ours.of_shared >= 0.9 and ours.balance <= 1.25,
    })  # fmt: skip
