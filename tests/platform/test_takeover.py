"""Two controllers on one PostgreSQL, as processes: the leader is killed, then one stands still."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import httpx
import pytest
from sqlalchemy import select

from serving.controller.keys import ensure_keys_async
from serving.controller.leader_tables import LEADERSHIP
from serving.controller.store import Store
from tests.metering.platform import (
    ADMIN_KEY,
    MODEL,
    TENANT_KEY,
    TOKEN,
    Part,
    Platform,
    free_port,
    until,
)
from tests.metering.postgres import Postgres, obstacle, running

pytestmark = pytest.mark.engine  # no vLLM, but real processes for half a minute

LEASE_S = 4
"""Long enough for a busy machine; and no assertion below minds who led in between."""

ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
INTERNAL = {"Authorization": f"Bearer {TOKEN}"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
TRIES = 6
"""The fake engines break off one in 25 requests."""


class Controller:
    """One of the two."""

    def __init__(self, name: str, folder: Path, database_url: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.part = Part(
            name, ["serving.controller.app"],
            {"PENSTOCK_INTERNAL_TOKEN": TOKEN, "PENSTOCK_DATABASE_URL": database_url,
             "PENSTOCK_CONTROLLER_PORT": str(port), "PENSTOCK_POOLS": '{"cpu": 2}',
             "PENSTOCK_LEADER_LEASE_S": str(LEASE_S), "PENSTOCK_HOST_TIMEOUT_S": "60"},
            folder / f"{name}.log",
        )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        assert self.part.process is not None
        self.part.process.send_signal(number)

    async def ready(self, http: httpx.AsyncClient) -> str:
        with contextlib.suppress(httpx.HTTPError):
            return str((await http.get(f"{self.url}/healthz")).json()["ready"])
        return ""

    async def becomes(self, what: str, http: httpx.AsyncClient) -> None:
        async def is_so() -> bool:
            return await self.ready(http) == what

        await until(is_so)


@pytest.fixture
def server() -> Iterator[Postgres]:
    if (reason := obstacle()) is not None:
        pytest.skip(reason)
    with running() as server:
        yield server


@pytest.fixture
def pair(server: Postgres, tmp_path: Path) -> tuple[Controller, Controller]:
    return (
        Controller("first", tmp_path, server.url),
        Controller("second", tmp_path, server.url),
    )


@pytest.fixture
async def platform(
    server: Postgres, pair: tuple[Controller, Controller], tmp_path: Path
) -> AsyncIterator[Platform]:
    """Gateways and hosts that know both controllers, of which the first leads."""
    first, second = pair
    platform = Platform(tmp_path, server)
    urls = f"{first.url},{second.url}"
    for part in (*platform.gateways, *platform.hosts):
        part.environment["PENSTOCK_CONTROLLER_URL"] = urls
    await ensure_keys_async(server.url, ADMIN_KEY, TENANT_KEY)
    try:
        first.part.start()
        async with httpx.AsyncClient(headers=ADMIN, timeout=30) as http:
            await first.becomes("leader", http)
            second.part.start()
            await second.becomes("standby", http)
            for part in (*platform.hosts, *platform.gateways[:1]):
                part.start()
            manifest = {"name": MODEL, "source": "builtin://guide", "scaling": {"min": 2, "max": 2},
                        "engine": {"max_num_seqs": 12}}  # fmt: skip
            (await http.post(f"{first.url}/admin/v1/models", json=manifest)).raise_for_status()
            await until(lambda: _engines_ready(http, first))
        yield platform
    finally:
        for one in pair:
            if one.part.process is not None:
                one.signal(signal.SIGCONT)
            one.part.kill()
        platform.close()


async def _engines_ready(http: httpx.AsyncClient, leader: Controller) -> bool:
    answer = await http.get(f"{leader.url}/admin/v1/models")
    return answer.status_code == 200 and answer.json()["items"][0]["engines_ready"] == 2


@asynccontextmanager
async def asked_all_the_time(url: str) -> AsyncIterator[Counter[str]]:
    """Requests one after the other meanwhile; counts those that a tenant got an answer to."""
    seen: Counter[str] = Counter()

    async def ask() -> None:
        headers = {"Authorization": f"Bearer {TENANT_KEY}"}
        async with aiohttp.ClientSession(url, headers=headers) as http:
            while True:
                began_s = time.monotonic()
                for _ in range(TRIES):
                    with contextlib.suppress(aiohttp.ClientError):
                        async with http.post("/v1/chat/completions", json=CHAT) as answer:
                            await answer.read()
                        if answer.status == 200:
                            seen["answered"] += 1
                            break
                else:
                    seen["lost"] += 1
                seen["longest_ms"] = max(
                    seen["longest_ms"], round((time.monotonic() - began_s) * 1e3)
                )

    task = asyncio.create_task(ask())
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def leadership(url: str) -> tuple[int, str]:
    store = await Store.open(url)
    async with store.transaction() as db:
        row = (await db.execute(select(LEADERSHIP))).one()
    await store.close()
    return row.token, row.url


async def test_requests_go_on_while_controllers_are_killed_and_stand_still(
    platform: Platform, pair: tuple[Controller, Controller]
) -> None:
    engines = [platform.engine_pid(0), platform.engine_pid(1)]
    async with (
        httpx.AsyncClient(headers=ADMIN, timeout=30) as http,
        asked_all_the_time(platform.urls[0]) as seen,
    ):
        await until(lambda: _came(seen, 1))

        leader, other = await leader_of(pair, http)
        token, _ = await leadership(platform.database_url)
        leader.part.kill()
        killed_s = time.monotonic()
        await other.becomes("leader", http)
        print(f"took over after {time.monotonic() - killed_s:.1f} s")
        await until(lambda: _engines_ready(http, other))
        print(f"knew both engines after {time.monotonic() - killed_s:.1f} s")
        after_kill, url = await leadership(platform.database_url)
        assert (after_kill > token, url) == (True, other.url)
        # Through the gateway, which found the new leader by itself.
        await until(lambda: _can_write(http, platform.urls[0], "after-a-kill"))

        leader.part.start()
        await leader.becomes("standby", http)
        other.signal(signal.SIGSTOP)
        await leader.becomes("leader", http)
        other.signal(signal.SIGCONT)
        # At once, before it may have noticed itself: it must neither write nor answer.
        late = await http.post(f"{other.url}/admin/v1/organizations", json={"name": "late"})
        assert late.status_code == 503
        await other.becomes("standby", http)
        after_pause, url = await leadership(platform.database_url)
        assert (after_pause > after_kill, url) == (True, leader.url)
        await until(lambda: _engines_ready(http, leader))
        await until(lambda: _can_write(http, platform.urls[0], "after-a-standstill"))
        names = [one["name"] for one in await _organizations(http, leader.url)]
        assert "late" not in names
        assert {"after-a-kill", "after-a-standstill"} <= set(names)

        answered = seen["answered"]
        await until(lambda: _came(seen, answered + 5))
    print(dict(seen))
    assert seen["lost"] == 0
    # Nothing was bound anew: the engines that ran were adopted, twice.
    assert [platform.engine_pid(0), platform.engine_pid(1)] == engines


async def leader_of(
    pair: tuple[Controller, Controller], http: httpx.AsyncClient
) -> tuple[Controller, Controller]:
    """Who leads, and who does not."""
    first, second = pair
    return (second, first) if await second.ready(http) == "leader" else (first, second)


async def _came(seen: Counter[str], number: int) -> bool:
    return seen["answered"] >= number


async def _can_write(http: httpx.AsyncClient, url: str, name: str) -> bool:
    answer = await http.post(f"{url}/admin/v1/organizations", json={"name": name})
    return answer.status_code in (200, 201)


async def _organizations(http: httpx.AsyncClient, url: str) -> list[dict[str, str]]:
    items: list[dict[str, str]] = (await http.get(f"{url}/admin/v1/organizations")).json()["items"]
    return items
