"""This gateway talks to a controller of the version before it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from serving.gateway.link import ControllerLink
from serving.leaders import Controllers
from serving.messages import Message
from serving.metered import UsageBatch
from serving.protocol import DemandReport, ModelState
from serving.shares import ShareReport
from tests.docs.older import reads, said
from tests.docs.protocol_samples import SAID

PATHS = {
    "demand": ("DemandReport", "DemandReply"),
    "limits": ("ShareReport", "ShareReply"),
    "usage": ("UsageBatch", "UsageReceipt"),
}


@pytest.fixture
async def link() -> AsyncIterator[ControllerLink]:
    """To a controller that reads and answers as was recorded of it."""

    async def told(request: web.Request) -> web.Response:
        asked, answer = PATHS[request.match_info["path"]]
        reads(asked, await request.read())
        return web.json_response(said(answer))

    def polled(answer: str) -> Any:
        async def handler(_request: web.Request) -> web.Response:
            return web.json_response(said(answer))

        return handler

    app = web.Application()
    app.router.add_get("/internal/v1/routes", polled("RoutesDelta"))
    app.router.add_get("/internal/v1/identities", polled("IdentitiesDelta"))
    app.router.add_post("/internal/v1/{path}", told)
    async with (
        TestServer(app) as server,
        ControllerLink(Controllers(str(server.make_url("/"))), "token") as link,
    ):
        yield link


def ours(kind: type[Message]) -> Any:
    (message,) = [one for one in SAID if isinstance(one, kind)]
    return message


async def test_gateway_takes_models_and_keys_of_an_older_controller(link: ControllerLink) -> None:
    routes = await link.routes(0)
    (model,) = routes.models
    assert (model.name, model.state) == ("guide", ModelState.READY)
    assert model.endpoints[0].engine_id == "guide-1"
    identities = await link.identities(0)
    assert identities.keys[0].may_call("guide")
    assert json.loads(identities.model_dump_json())["keys"][0]["key_id"] == "key-1"


async def test_older_controller_reads_demand_usage_and_meters(link: ControllerLink) -> None:
    assert (await link.demand(ours(DemandReport))).leases == {"guide-1": 8}
    assert (await link.shares(ours(ShareReport))).shares[0].granted == 12
    assert (await link.usage(ours(UsageBatch).model_dump_json().encode())).new == 1
