"""The measuring client against the fake engine and against raw bytes, over loopback."""

import asyncio

import orjson
import pytest

from loadtests.client import Ask, Client, ServerError
from loadtests.measure import Failure
from tests.loadtests.conftest import FAST

FAULTS = [
    ("429", Failure.RATE_LIMITED),
    ("500", Failure.SERVER_ERROR),
    ("reset", Failure.RESET_EARLY),
    ("reset:token=2", Failure.RESET),
    ("truncate:token=2", Failure.TRUNCATED),
    ("malformed:token=2", Failure.MALFORMED),
    ("empty", Failure.EMPTY),
    ("hang:token=2", Failure.TIMEOUT),
]
"""What the fake engine is told to do wrong, and what it is called."""

ODD_ANSWERS = [
    (b"HTTP/1.1 200 OK\r\n\r\ndata: {}\n\n", Failure.MALFORMED),
    (b'HTTP/1.1 200 OK\r\n\r\ndata: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n', None),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\ndata", Failure.RESET),
    (b"SMTP ready\r\n", Failure.RESET_EARLY),
    (b"", Failure.RESET_EARLY),
]


def ask(max_tokens: int = 4, *, path: str = "/v1/chat/completions", **fields: object) -> Ask:
    body: dict[str, object] = {
        "model": "fake",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Ask(path, orjson.dumps(body | fields), keep_text=True)


async def test_stream_is_measured_and_its_connection_reused(start) -> None:
    url = await start()
    async with Client(url) as client:
        outcomes = [await client.measure(ask()) for _ in range(3)]
        status, metrics = await client.call("/metrics")
    for outcome in outcomes:
        assert outcome.ok
        assert (outcome.prompt_tokens, outcome.output_tokens, outcome.chunks) == (4, 4, 4)
        assert len(outcome.gaps_s) == 3
        assert len(outcome.text.split()) == 4
        assert 0 < outcome.ttft_s <= outcome.e2e_s < 5
    assert status == 200
    assert b"vllm:generation_tokens_total" in metrics


async def test_token_is_sent_and_a_path_in_the_url_is_kept(start) -> None:
    url = await start(token="secret")
    async with Client(f"{url}/v1/", "secret") as client:
        assert (await client.measure(ask())).ok
    async with Client(f"{url}/elsewhere", "secret") as client:
        outcome = await client.measure(ask())
        assert (outcome.failure, outcome.status) == (Failure.REJECTED, 404)
    async with Client(url) as client:
        assert (await client.measure(ask())).status == 401


@pytest.mark.parametrize(("fault", "failure"), FAULTS)
async def test_fault_is_named_and_the_next_request_is_well(start, fault, failure) -> None:
    url = await start(faults=(f"{fault},request=1" if ":" in fault else f"{fault}:request=1",))
    async with Client(url, timeout_s=0.3 if fault.startswith("hang") else 10) as client:
        assert (await client.measure(ask())).failure is failure
        assert (await client.measure(ask())).ok


async def test_server_that_is_not_there_is_a_failure_to_connect() -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with Client(f"http://127.0.0.1:{port}") as client:
        assert (await client.measure(ask())).failure is Failure.CONNECT
        with pytest.raises(ServerError):
            await client.call("/v1/models")


async def raw_server(response: bytes) -> asyncio.Server:
    """Answers the first bytes that come with `response`, then closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(response)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


@pytest.mark.parametrize(("response", "failure"), ODD_ANSWERS)
async def test_odd_servers_are_survived(response: bytes, failure: Failure | None) -> None:
    async with await raw_server(response) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}") as client:
            assert (await client.measure(ask())).failure is failure


async def test_many_streams_at_once_are_all_complete(start) -> None:
    url = await start(FAST)
    async with Client(url) as client:
        outcomes = await asyncio.gather(*(client.measure(ask(20)) for _ in range(100)))
    assert all(outcome.ok and outcome.chunks == 20 for outcome in outcomes)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://"])
def test_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        Client(url)
