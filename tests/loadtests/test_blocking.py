"""The blocking client says of the same faults the same as the asynchronous one."""

import asyncio

import pytest

from loadtests.blocking import BlockingClient
from loadtests.client import ServerError
from loadtests.measure import Failure
from tests.loadtests.test_client import FAULTS, ODD_ANSWERS, ask, raw_server


async def test_stream_is_measured_and_its_connection_reused(start) -> None:
    client = BlockingClient(f"{await start(token='secret')}/v1", "secret")
    outcomes = [await asyncio.to_thread(client.measure, ask()) for _ in range(3)]
    status, _metrics = await asyncio.to_thread(client.call, "/metrics")
    client.close()
    assert status == 200
    for outcome in outcomes:
        assert outcome.ok
        assert (outcome.output_tokens, outcome.chunks, len(outcome.gaps_s)) == (4, 4, 3)
        assert 0 < outcome.ttft_s <= outcome.e2e_s < 5


@pytest.mark.parametrize(("fault", "failure"), FAULTS)
async def test_fault_is_named_and_the_next_request_is_well(start, fault, failure) -> None:
    url = await start(faults=(f"{fault},request=1" if ":" in fault else f"{fault}:request=1",))
    client = BlockingClient(url, timeout_s=0.3 if fault.startswith("hang") else 10)
    assert (await asyncio.to_thread(client.measure, ask())).failure is failure
    assert (await asyncio.to_thread(client.measure, ask())).ok
    client.close()


@pytest.mark.parametrize(("response", "failure"), ODD_ANSWERS)
async def test_odd_servers_are_survived(response: bytes, failure: Failure | None) -> None:
    async with await raw_server(response) as server:
        port = server.sockets[0].getsockname()[1]
        client = BlockingClient(f"http://127.0.0.1:{port}")
        assert (await asyncio.to_thread(client.measure, ask())).failure is failure
        client.close()


def test_server_that_is_not_there_is_a_failure_to_connect() -> None:
    client = BlockingClient("http://127.0.0.1:9")
    assert client.measure(ask()).failure is Failure.CONNECT
    with pytest.raises(ServerError):
        client.call("/v1/models")
