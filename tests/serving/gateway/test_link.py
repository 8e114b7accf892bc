"""The gateway's link goes to the controller that leads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from models.errors import UnreachableError
from serving.gateway.link import ControllerLink
from serving.leaders import LEADER_HEADER, Controllers
from serving.protocol import DemandReport

REPORT = DemandReport(gateway_id="gw")


class FakeController:
    """Answers as a leader where `leader` is None, else as a standby that names it."""

    def __init__(self, leader: str | None = None) -> None:
        self.leader = leader
        self.asked = 0
        app = web.Application()
        app.router.add_post("/internal/v1/demand", self._demand)
        app.router.add_get("/internal/v1/routes", self._poll)
        self.polled, self.end = asyncio.Event(), asyncio.Event()
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self.server.make_url("/")).rstrip("/")

    async def _poll(self, _request: web.Request) -> web.Response:
        self.polled.set()
        await self.end.wait()
        return web.Response()

    async def _demand(self, _request: web.Request) -> web.Response:
        self.asked += 1
        if self.leader is None:
            return web.json_response({"leases": {"engine": 3}})
        return web.json_response({}, status=503, headers={LEADER_HEADER: self.leader})


@pytest.fixture
async def pair() -> AsyncIterator[tuple[FakeController, FakeController]]:
    async with AsyncExitStack() as stack:
        leader, standby = FakeController(), FakeController("")
        for one in (leader, standby):
            await one.server.start_server()
            stack.push_async_callback(one.server.close)
        yield leader, standby


async def test_link_asks_the_leader_that_a_standby_names_and_stays_with_it(
    pair: tuple[FakeController, FakeController],
) -> None:
    leader, standby = pair
    standby.leader = leader.url
    async with ControllerLink(Controllers(standby.url), "token") as link:
        for _ in range(3):
            assert (await link.demand(REPORT)).leases == {"engine": 3}
    assert (standby.asked, leader.asked) == (1, 3)


async def test_link_comes_back_to_its_addresses_when_the_leader_is_gone(
    pair: tuple[FakeController, FakeController],
) -> None:
    leader, standby = pair
    standby.leader = leader.url
    async with ControllerLink(Controllers(standby.url), "token") as link:
        await link.demand(REPORT)
        await leader.server.close()
        with pytest.raises(UnreachableError):
            await link.demand(REPORT)
        standby.leader = None  # it leads by now
        assert (await link.demand(REPORT)).leases == {"engine": 3}


async def test_link_tries_the_next_address_where_a_standby_knows_no_leader(
    pair: tuple[FakeController, FakeController],
) -> None:
    leader, standby = pair
    async with ControllerLink(Controllers(f"{standby.url},{leader.url}"), "token") as link:
        assert (await link.demand(REPORT)).leases == {"engine": 3}


async def test_link_says_so_where_nobody_leads(
    pair: tuple[FakeController, FakeController],
) -> None:
    _, standby = pair
    async with ControllerLink(Controllers(standby.url), "token") as link:
        with pytest.raises(UnreachableError, match="503"):
            await link.demand(REPORT)
    assert standby.asked == 1


async def test_poll_of_a_leader_that_stands_still_ends_when_another_conversation_notices(
    pair: tuple[FakeController, FakeController],
) -> None:
    leader, _ = pair
    controllers = Controllers(f"{leader.url},http://127.0.0.1:9")
    async with ControllerLink(controllers, "token") as link:
        poll = asyncio.create_task(link.routes(0))
        await leader.polled.wait()
        controllers.is_away(leader.url)  # as after a report that was not answered
        with pytest.raises(UnreachableError, match="does not answer"):
            await poll
    leader.end.set()
