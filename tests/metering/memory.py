"""`make test-memory`: what a gateway and a controller hold after 200,000 metered requests.

    python -m tests.metering.memory [--requests 200000] [--callers 32] [--seed N] [--keep]

One gateway with fifty limited keys, a controller on SQLite, two fake engines with real recorders;
answers of two tokens over connections that stay open, every other one a stream. The resident
memory of each process is told on the way. Exits 1 where the gateway or the controller holds more
than GROWTH_MIB more at the end than after the first quarter, a request failed, or a row is missing.
Each prompt is another: by then the gateway remembers as many beginnings as it ever does.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from sqlalchemy import func, select

from serving.controller.store import Store
from serving.controller.usage_tables import ATTEMPTS, USAGE, USAGE_HOURS
from tests.metering.engine import SOUND_VARIABLE
from tests.metering.limits import make_keys
from tests.metering.platform import MODEL, Platform
from tests.metering.verdict import tell

GROWTH_MIB = 10.0
MARKS = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Of all requests, after which the memory is looked at."""

FROM = MARKS.index(0.25)
PER_MIN = 1_000_000
TOKENS = 2


@dataclass
class Seen:
    """What the client saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    memory: list[dict[str, float]] = field(default_factory=list)  # MiB by process, at MARKS


async def play(requests: int, callers: int, seed: int, folder: Path) -> list[str]:
    """Plays it and returns what is not true."""
    platform = Platform(folder)
    del platform.gateways[1:], platform.urls[1:]
    for host in platform.hosts:
        host.environment[SOUND_VARIABLE] = "1"
    try:
        await platform.start()
        keys = [*(await make_keys(platform, PER_MIN)).values()]
        seen = await _load(platform, keys, requests, callers, seed)
        await platform.settle()
        return _memory_faults(seen) + await _row_faults(platform, seen)
    finally:
        platform.close()


async def _load(
    platform: Platform, keys: Sequence[str], requests: int, callers: int, seed: int
) -> Seen:
    seen, chance, turns = Seen(), random.Random(seed), iter(range(requests))
    marks = [round(share * requests) for share in MARKS]
    began_s = time.monotonic()
    url = f"{platform.urls[0]}/v1/chat/completions"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def caller() -> None:
            for number in turns:
                body = {"model": MODEL, "messages": [{"role": "user", "content": f"w {number}"}],
                        "max_tokens": TOKENS, "stream": number % 2 == 0}  # fmt: skip
                headers = {"authorization": f"Bearer {chance.choice(keys)}"}
                async with http.post(url, json=body, headers=headers) as answer:
                    await answer.read()
                seen.statuses[answer.status] += 1
                if seen.statuses.total() in marks:
                    seen.memory.append(_memory(platform))
                    _print(seen, time.monotonic() - began_s)

        await asyncio.gather(*(caller() for _ in range(callers)))
    return seen


def _memory(platform: Platform) -> dict[str, float]:
    parts = (*platform.gateways, platform.controller, *platform.hosts)
    pids = {part.name: part.process.pid for part in parts if part.process is not None}
    pids |= {f"engine {host}": platform.engine_pid(host) for host in range(len(platform.hosts))}
    return {name: psutil.Process(pid).memory_info().rss / 2**20 for name, pid in pids.items()}


def _print(seen: Seen, after_s: float) -> None:
    told = ", ".join(f"{name} {mib:.1f}" for name, mib in seen.memory[-1].items())
    print(f"  {seen.statuses.total():>7} requests, {after_s:5.0f} s; MiB: {told}", flush=True)


def _memory_faults(seen: Seen) -> list[str]:
    found = []
    for name in ("gateway 0", "controller"):
        growth = seen.memory[-1][name] - seen.memory[FROM][name]
        print(f"  {name}: {growth:+.1f} MiB from the first quarter to the end", flush=True)
        if growth > GROWTH_MIB:
            found.append(f"the {name} holds {growth:.1f} MiB more than after the first quarter")
    return found


async def _row_faults(platform: Platform, seen: Seen) -> list[str]:
    store = await Store.open(platform.database_url)
    async with store.transaction() as db:
        complete = USAGE.c.status == "complete"
        rows = await db.scalar(select(func.count()).where(complete, USAGE.c.completion == TOKENS))
        attempts = await db.scalar(select(func.count()).select_from(ATTEMPTS))
        summed = await db.scalar(select(func.sum(USAGE_HOURS.c.requests)))
    await store.close()
    counts = (rows, attempts, summed)
    told = dict(seen.statuses)
    print(f"  by status {told}; rows, attempts, the hours' sum: {counts}", flush=True)
    answered = seen.statuses[200]
    found = [] if answered == seen.statuses.total() else [f"not everybody was answered: {told}"]
    return found if counts == (answered,) * 3 else [*found, f"{answered} answers, but {counts}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.metering.memory")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--keep", action="store_true", help="keep logs and the database")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="penstock-memory-"))
    print(f"{given.requests} requests by {given.callers} callers, seed {seed}", flush=True)
    faults = asyncio.run(play(given.requests, given.callers, seed, folder))
    return tell(faults, folder, keep=given.keep, shown=20)


if __name__ == "__main__":
    sys.exit(main())
