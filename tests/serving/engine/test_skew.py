"""This host talks to a controller of the version before it, and to one that is newer."""

import httpx
from pydantic import SecretStr

from serving.engine.controller_client import ControllerClient
from serving.metered import AttemptBatch
from serving.protocol import HostRegistration, HostReport
from tests.docs.older import reads, said
from tests.docs.protocol_samples import GUIDE, SAID

READ = {"register": "HostRegistration", "report": "HostReport", "attempts": "AttemptBatch"}
ANSWERS = {"register": "HostAdmission", "report": "HostAdmission", "attempts": "AttemptReceipt"}


def older(request: httpx.Request) -> httpx.Response:
    """A controller that reads and answers as was recorded of it."""
    last = request.url.path.rpartition("/")[2]
    if last == "assignment":
        return httpx.Response(200, json=said("Assignment"))
    reads(READ[last], request.content)
    return httpx.Response(200, json=said(ANSWERS[last]))


def newer(_request: httpx.Request) -> httpx.Response:
    """A controller whose messages and manifests have fields that we do not know."""
    assignment = said("Assignment")
    manifest = assignment["engine"]["manifest"]
    for part in (assignment, assignment["engine"], manifest, manifest["engine"]):
        part["news"] = {"of": "theirs"}
    return httpx.Response(200, json=assignment)


async def test_host_is_understood_by_an_older_controller() -> None:
    client = ControllerClient("http://c", SecretStr("token"), httpx.MockTransport(older))
    for message in SAID:
        match message:
            case HostRegistration():
                await client.register(message)
            case HostReport():
                assert (await client.report("host-1", message)).known
            case AttemptBatch():
                assert (await client.attempts(message)).new == 1
    await client.close()


async def test_host_takes_the_assignment_of_an_older_controller() -> None:
    client = ControllerClient("http://c", SecretStr("token"), httpx.MockTransport(older))
    assignment = await client.assignment("host-1", 0)
    assert assignment.engine is not None
    assert assignment.engine.manifest == GUIDE
    assert assignment.prefetch == (GUIDE,)
    await client.close()


async def test_host_takes_the_assignment_of_a_newer_controller() -> None:
    client = ControllerClient("http://c", SecretStr("token"), httpx.MockTransport(newer))
    assignment = await client.assignment("host-1", 0)
    assert assignment.engine is not None
    assert assignment.engine.manifest == GUIDE
    await client.close()
