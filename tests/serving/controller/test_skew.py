"""Gateways and hosts of the version before this one talk to this controller.

They say what was recorded of them, and have to be able to read each answer.
"""

import json
from typing import Any

import httpx

from tests.docs.older import reads, said
from tests.serving.controller.served import Served, serve
from tests.serving.controller.world import settings

INTERNAL = "/internal/v1"


async def told(served: Served, path: str, message: Any, answer: str) -> Any:
    """What the older peer reads in the answer to its message."""
    response = await served.internal.post(f"{INTERNAL}/{path}", content=json.dumps(message))
    return read(response, answer)


def read(response: httpx.Response, answer: str) -> Any:
    assert response.status_code == 200, response.text
    return reads(answer, response.content)


async def test_older_host_brings_its_engine_and_older_gateway_finds_it(database_url: str) -> None:
    patient = settings(database_url=database_url, pools={"cpu": 1}, host_timeout_s=600.0)
    async with serve(patient) as served:
        assert (await served.deploy()).status_code == 201
        registration = said("HostRegistration")
        assert await told(served, "hosts/register", registration, "HostAdmission") == {
            "known": True
        }
        reported = await told(served, "hosts/host-1/report", said("HostReport"), "HostAdmission")
        assert reported == {"known": True}
        poll = f"{INTERNAL}/hosts/host-1/assignment?after=0"
        assignment = read(await served.internal.get(poll), "Assignment")
        assert assignment["engine"]["engine_id"] == "guide-1"  # adopted, not started anew
        assert assignment["engine"]["manifest"]["source"] == "builtin://guide"

        await served.route_that(lambda route: bool(route.endpoints))
        routes = read(await served.internal.get(f"{INTERNAL}/routes?after=0"), "RoutesDelta")
        (model,) = routes["models"]
        assert [endpoint["engine_id"] for endpoint in model["endpoints"]] == ["guide-1"]
        keys = read(await served.internal.get(f"{INTERNAL}/identities?after=0"), "IdentitiesDelta")
        assert len(keys["keys"]) == 2
        reply = await told(served, "demand", said("DemandReport"), "DemandReply")
        assert reply["leases"]["guide-1"] >= 8


async def test_older_peers_meter_and_share_limits(database_url: str) -> None:
    async with serve(settings(database_url=database_url)) as served:
        assert await told(served, "usage", said("UsageBatch"), "UsageReceipt") == {"new": 1}
        assert await told(served, "attempts", said("AttemptBatch"), "AttemptReceipt") == {"new": 1}
        await told(served, "limits", said("ShareReport"), "ShareReply")
