"""Controllers on one database: one leads, the others stand by and take over."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from sqlalchemy import update

from models.errors import BadRequestError
from serving.controller.app import create_app
from serving.controller.keys import ensure_keys_async
from serving.controller.leader_setup import own_url
from serving.controller.leader_tables import LEADERSHIP
from serving.controller.server import Server, listen
from serving.controller.store import Store
from serving.leaders import LEADER_HEADER
from tests.serving.controller.served import ADMIN_KEY, API_KEY, NO_TLS
from tests.serving.controller.world import settings

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
INTERNAL = {"authorization": "Bearer internal-token"}
LEASE_S = 60.0
"""Long: nobody takes over here because the machine is slow."""


class One:
    """One of the controllers."""

    def __init__(self, client: httpx.AsyncClient, server: Server, url: str) -> None:
        self.client = client
        self.url = url
        self._server = server

    async def ready(self) -> str:
        return str((await self.client.get("/healthz")).json()["ready"])

    async def becomes(self, what: str) -> None:
        async with asyncio.timeout(60):
            while await self.ready() != what:  # noqa: ASYNC110  # over HTTP
                await asyncio.sleep(0.02)

    async def names(self) -> str:
        """Whom it says that leads; nobody, until it has looked."""
        async with asyncio.timeout(60):
            while True:
                polled = await self.client.get("/internal/v1/routes", headers=INTERNAL)
                if url := polled.headers.get(LEADER_HEADER):
                    return url

    def stop(self) -> None:
        self._server.should_exit = True


@asynccontextmanager
async def controller(database_url: str) -> AsyncIterator[One]:
    sock = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    given = settings(
        database_url=database_url, leader_lease_s=LEASE_S, controller_advertise_url=url
    )
    server = Server(create_app(given))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started and not task.done():  # noqa: ASYNC110  # uvicorn has no event
        await asyncio.sleep(0.005)
    try:
        async with httpx.AsyncClient(base_url=url, timeout=30, verify=NO_TLS) as client:
            yield One(client, server, url)
    finally:
        server.should_exit = True
        await task
        sock.close()


async def test_one_leads_and_the_other_reads_until_the_leader_ends(database_url: str) -> None:
    await ensure_keys_async(database_url, ADMIN_KEY, API_KEY)
    async with controller(database_url) as first:
        await first.becomes("leader")
        async with controller(database_url) as second:
            assert await second.ready() == "standby"
            deployed = {"name": "guide", "source": "builtin://guide"}
            answer = await first.client.post("/admin/v1/models", json=deployed, headers=ADMIN)
            assert answer.status_code == 201, answer.text

            refused = await second.client.post("/admin/v1/models", json=deployed, headers=ADMIN)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_leader")
            assert await second.names() == first.url
            keys = await second.client.get("/admin/v1/keys", headers=ADMIN)
            assert len(keys.json()["items"]) == 2
            metrics = (await second.client.get("/metrics")).text
            assert "penstock_controller_leads 0.0" in metrics
            assert "penstock_model_state" not in metrics

            first.stop()  # in good order: it gives the lease back
            await second.becomes("leader")
            models = await second.client.get("/admin/v1/models", headers=ADMIN)
            assert [model["name"] for model in models.json()["items"]] == ["guide"]
            assert "penstock_controller_leads 1.0" in (await second.client.get("/metrics")).text


async def test_leader_whose_lease_another_took_stands_by_again(database_url: str) -> None:
    async with controller(database_url) as one:
        await one.becomes("leader")
        store = await Store.open(database_url)
        async with store.transaction() as db:
            await db.execute(
                update(LEADERSHIP).values(
                    token=99, holder="another", url="http://another", expires_at=time.time() + 3600
                )
            )
        await store.close()
        # Its next write is refused: that of a deploy, at the latest.
        manifest = {"name": "guide", "source": "builtin://guide"}
        await ensure_keys_async(database_url, ADMIN_KEY, API_KEY)
        async with asyncio.timeout(60):
            while (  # noqa: ASYNC110  # over HTTP
                await one.client.post("/admin/v1/models", json=manifest, headers=ADMIN)
            ).status_code != 503:
                await asyncio.sleep(0.05)
        await one.becomes("standby")
        assert await one.names() == "http://another"
        assert (await one.client.get("/admin/v1/events", headers=ADMIN)).status_code == 200


async def test_controller_beside_others_says_where_it_is() -> None:
    assert own_url(settings(controller_host="10.0.0.7", controller_port=81)) == "http://10.0.0.7:81"
    assert own_url(settings(controller_host="fd00::7", controller_port=81)) == "http://[fd00::7]:81"
    assert own_url(settings(controller_advertise_url="http://a:1/")) == "http://a:1"
    with pytest.raises(BadRequestError, match="say where it is"):
        own_url(settings(controller_host="0.0.0.0", controller_port=81))  # noqa: S104
    with pytest.raises(BadRequestError, match="say where it is"):
        own_url(settings(controller_port=0))
