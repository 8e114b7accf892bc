"""`make test-limits`: fifty keys at twice their limit, over two gateways, as processes.

    python -m tests.metering.limits [--store shares|redis] [--direction allow|deny]
                                    [--minutes 3] [--per-min 60] [--seed N]

Each key gets a Poisson stream of requests at twice its limit, spread over both gateways at random.
After a first minute, in which a limit that nobody used may be used up at once, it holds what was
let in against the limit: by the client's answers, and minute by minute of each key by the rows of
usage. Then a refund has to be usable at the other gateway within a second; and Redis, where it
counts, is killed. Engines are fake. Exits 1 where something is not true.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import aiohttp
import httpx
from sqlalchemy import select

from serving.controller.store import Store
from serving.controller.usage_tables import USAGE
from tests.metering.engine import SOUND_VARIABLE
from tests.metering.platform import ADMIN_KEY, MODEL, Platform
from tests.metering.verdict import tell
from tests.serving.gateway.redis_server import RedisServer

KEYS = 50
OVERLOAD = 2.0
WITHIN = 0.02
SPAN_S = 60.0
REFUND_S = 1.0
OUTPUT_PER_MIN = 1000


@dataclass(frozen=True)
class Plan:
    """One run."""

    store: str
    direction: str
    minutes: float
    per_min: int
    seed: int


@dataclass
class Seen:
    """What the client saw."""

    accepted: Counter[str] = field(default_factory=Counter)  # by key, after the first minute
    statuses: Counter[int] = field(default_factory=Counter)
    late_s: float = 0.0  # the most that a request was sent late, which makes the load less even


class Client:
    """Calls the gateways with any key, each time over a connection of its own."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._http = aiohttp.ClientSession(connector=connector)

    async def ask(self, secret: str, gateway: int, max_tokens: int = 1) -> int:
        """Asks, and waits for the whole answer; returns its status, 0 where there was none."""
        try:
            async with self._post(secret, gateway, max_tokens, stream=False) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def leave_early(self, secret: str, gateway: int, max_tokens: int) -> int:
        """Takes a few tokens of a long answer and goes."""
        async with self._post(secret, gateway, max_tokens, stream=True) as answer:
            if answer.status == 200:
                for _ in range(6):
                    await answer.content.readline()
            return answer.status

    async def close(self) -> None:
        """Closes its connections."""
        await self._http.close()

    def _post(
        self, secret: str, gateway: int, max_tokens: int, *, stream: bool
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "w"}], "stream": stream,
                "max_tokens": max_tokens}  # fmt: skip
        url = f"{self._urls[gateway]}/v1/chat/completions"
        return self._http.post(url, json=body, headers=_bearer(secret))


async def play(plan: Plan, folder: Path) -> list[str]:
    """Plays a run and returns what is not true."""
    platform = Platform(folder)
    redis = RedisServer(folder) if plan.store == "redis" else None
    for host in platform.hosts:
        host.environment[SOUND_VARIABLE] = "1"
    for gateway in platform.gateways:
        gateway.environment["PENSTOCK_ON_LIMIT_STORE_DOWN"] = plan.direction
        if redis is not None:
            gateway.environment["PENSTOCK_REDIS_URL"] = redis.url
    try:
        await platform.start()
        client = Client(platform.urls)
        keys = await make_keys(platform, plan.per_min)
        seen = await _load(plan, client, keys)
        found = _rate_faults(plan, seen, list(keys))
        found += await _refund_faults(platform, client)
        if redis is not None:
            found += await _death_faults(plan, platform, client, redis)
        await client.close()
        await platform.settle()
        return found + await _minute_faults(plan, platform, set(keys))
    finally:
        platform.close()
        if redis is not None:
            redis.kill()


async def make_keys(platform: Platform, per_min: int) -> dict[str, str]:
    """Makes limited keys; of each its id and its secret. Waits until both gateways know them."""
    keys = {}
    for number in range(KEYS):
        key_id, secret = await _make_key(platform, f"k{number}", {"requests_per_min": per_min})
        keys[key_id] = secret
    return keys


async def _make_key(platform: Platform, name: str, limit: dict[str, int]) -> tuple[str, str]:
    async with httpx.AsyncClient(headers=_bearer(ADMIN_KEY), timeout=30) as http:
        admin = f"{platform.controller_url}/admin/v1"
        made = (await http.post(f"{admin}/keys", json={"name": name})).raise_for_status().json()
        key_id, secret = str(made["key"]["key_id"]), str(made["secret"])
        path = f"{admin}/limits/{key_id}/{quote('*', safe='')}"
        (await http.put(path, json=limit)).raise_for_status()
        for url in platform.urls:  # known is the key only then
            ends_s = time.monotonic() + 30
            headers = _bearer(secret)
            while (await http.get(f"{url}/v1/models", headers=headers)).status_code != 200:
                if time.monotonic() > ends_s:
                    raise TimeoutError(f"{url} does not know the key")
                await asyncio.sleep(0.05)
    return key_id, secret


async def _load(plan: Plan, client: Client, keys: dict[str, str]) -> Seen:
    seen = Seen()
    began_s = time.monotonic()
    ends_s = SPAN_S + 60 * plan.minutes
    running: set[asyncio.Task[None]] = set()

    async def one(key_id: str, gateway: int, at_s: float) -> None:
        status = await client.ask(keys[key_id], gateway)
        seen.statuses[status] += 1
        if status == 200 and at_s >= SPAN_S:
            seen.accepted[key_id] += 1

    async def tenant(key_id: str) -> None:
        chance = random.Random(f"{plan.seed} {key_id}")
        at_s = 0.0
        while (at_s := at_s + chance.expovariate(OVERLOAD * plan.per_min / 60)) < ends_s:
            ahead_s = at_s - (time.monotonic() - began_s)
            seen.late_s = max(seen.late_s, -ahead_s)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            task = asyncio.create_task(one(key_id, chance.randrange(2), at_s))
            running.add(task)
            task.add_done_callback(running.discard)

    await asyncio.gather(*(tenant(key_id) for key_id in keys))
    await asyncio.gather(*running)
    return seen


def _rate_faults(plan: Plan, seen: Seen, keys: Sequence[str]) -> list[str]:
    rates = [seen.accepted[key_id] / plan.minutes for key_id in keys]
    mean = sum(rates) / len(rates)
    print(
        f"  {sum(seen.statuses.values())} requests, by status {dict(seen.statuses)}; accepted "
        f"{mean:.2f}/min of {plan.per_min} ({mean / plan.per_min - 1:+.2%}), of single keys "
        f"{min(rates):.1f} to {max(rates):.1f}; sent at most {seen.late_s:.2f} s late",
        flush=True,
    )
    found = []
    if abs(mean / plan.per_min - 1) > WITHIN:
        found.append(f"accepted {mean:.2f}/min, which is not within 2 % of {plan.per_min}")
    if strange := seen.statuses.keys() - {200, 429}:
        found.append(f"answers of status {sorted(strange)}")
    return found


async def _minute_faults(plan: Plan, platform: Platform, keys: set[str]) -> list[str]:
    """By the rows of usage: no minute of a key holds more than its limit and a request for each
    gateway."""
    store = await Store.open(platform.database_url)
    query = select(USAGE.c.key_id, USAGE.c.at).where(USAGE.c.http_status == 200)
    async with store.transaction() as db:
        rows = (await db.execute(query.order_by(USAGE.c.at))).all()
    await store.close()
    by_key: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.key_id in keys:
            by_key[row.key_id].append(row.at)
    worst = max(_most_within(times) for times in by_key.values())
    bound = plan.per_min + len(platform.urls)
    print(f"  the fullest minute of a key held {worst} requests, the bound is {bound}", flush=True)
    return [f"{worst} requests in a minute, the bound is {bound}"] if worst > bound else []


def _most_within(times: Sequence[float]) -> int:
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= SPAN_S:
            first += 1
        most = max(most, last - first + 1)
    assert all(before <= after for before, after in pairwise(times))
    return most


async def _refund_faults(platform: Platform, client: Client) -> list[str]:
    limit = {"output_tokens_per_min": OUTPUT_PER_MIN}
    _, secret = await _make_key(platform, "refunded", limit)
    first = await client.leave_early(secret, 0, 900)
    left_s = time.monotonic()
    # A stream, too: its headers come when it is let in, its end when it is made.
    while (second := await client.leave_early(secret, 1, 800)) == 429:
        if time.monotonic() - left_s > 10 * REFUND_S:
            break
        await asyncio.sleep(0.02)
    took_s = time.monotonic() - left_s
    print(f"  a refund was usable at the other gateway after {took_s:.2f} s", flush=True)
    found = [] if first == second == 200 else [f"asked for a refund: {first}, then {second}"]
    return found if took_s <= REFUND_S else [*found, f"a refund took {took_s:.2f} s"]


async def _death_faults(
    plan: Plan, platform: Platform, client: Client, redis: RedisServer
) -> list[str]:
    _, secret = await _make_key(platform, "bereaved", {"requests_per_min": 1000})
    before = [await client.ask(secret, gateway) for gateway in (0, 1)]
    redis.kill()
    after = [await client.ask(secret, gateway) for gateway in (0, 1) * 5]
    print(f"  with Redis {before}, without it, to be {plan.direction}: {after}", flush=True)
    wanted = 200 if plan.direction == "allow" else 503
    return [] if set(before) == {200} and set(after) == {wanted} else [f"{before}, then {after}"]


def _bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.metering.limits")
    parser.add_argument("--store", choices=("shares", "redis"), default="shares")
    parser.add_argument("--direction", choices=("allow", "deny"), default="deny")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--per-min", type=int, default=60)
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    plan = Plan(given.store, given.direction, given.minutes, given.per_min, seed)
    print(f"limits kept by {plan.store}, {KEYS} keys, seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="penstock-limits-"))
    faults = asyncio.run(play(plan, folder))
    return tell(faults, folder)


if __name__ == "__main__":
    sys.exit(main())
