"""A connection to an engine's server, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from serving.gateway.engines import EngineClient
from serving.gateway.replies import EngineBrokeError, EngineGoneError
from serving.gateway.upstream import MAX_HEAD_BYTES, BrokenOffError, Upstream
from serving.protocol import EndpointRoute

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/x\r\n\r\nhello"


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[EndpointRoute]:
    """A server that does as it is told with each connection."""
    handling: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def handle() -> None:
            try:
                await serve(reader, writer)
            finally:
                writer.close()

        handling.add(asyncio.create_task(handle()))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield EndpointRoute(
            engine_id="e", url=f"http://127.0.0.1:{port}", token="t", revision=1, slots=1
        )
    finally:
        listening.close()
        for task in handling:
            task.cancel()
        await asyncio.gather(*handling, return_exceptions=True)


def says(*parts: bytes, close: bool = True) -> Serve:
    """Reads one request, then writes the parts, with a moment between them."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.002)
        if not close:
            await asyncio.Event().wait()

    return serve


async def ask(route: EndpointRoute) -> tuple[int, str, bytes]:
    async with EngineClient() as client, client.post(route, "/v1/x", b"{}", "id") as reply:
        return reply.status, reply.content_type, await reply.whole_body()


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ([OK], b"hello"),
        ([OK[:10], OK[10:30], OK[30:-2], OK[-2:]], b"hello"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK], b"hello"),
        ([CHUNKED + b"2\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n"], b"hello"),
        ([b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"], b"hello"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
    ],
)  # fmt: skip
async def test_answer_is_read_however_it_is_cut_up(parts: list[bytes], body: bytes) -> None:
    async with server(says(*parts)) as route:
        assert (await ask(route))[2] == body


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"],
        [b"no HTTP at all\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nX: " + b"y" * (MAX_HEAD_BYTES + 1)],
        [OK[:-2]],
        [CHUNKED + b"2\r\nhe\r\n"],
        [CHUNKED + b"2\r\nhello\r\n0\r\n\r\n"],
    ],
)
async def test_answer_that_is_broken_off_says_so(parts: list[bytes]) -> None:
    async with server(says(*parts)) as route:
        with pytest.raises(EngineBrokeError):
            await ask(route)


async def test_server_that_is_not_there_is_gone() -> None:
    async with server(says()) as route:
        pass
    with pytest.raises(EngineGoneError):
        await ask(route)


async def test_connection_is_used_again_when_its_answer_was_read_to_the_end() -> None:
    accepted = asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted, asked
        accepted += 1
        while await reader.readuntil(b"\r\n\r\n{}"):
            asked += 1
            writer.write(OK[:-2] if asked == 4 else OK)

    async with server(serve) as route, EngineClient() as client:
        for _ in range(3):
            async with client.post(route, "/v1/x", b"{}", "id") as reply:
                assert await reply.whole_body() == b"hello"
        assert accepted == 1
        async with client.post(route, "/v1/x", b"{}", "id"):
            pass  # left early: the connection goes, and with it the request
        async with client.post(route, "/v1/x", b"{}", "id") as reply:
            await reply.whole_body()
        assert accepted == 2


async def test_poured_parts_come_in_order_and_the_sink_may_stop_them() -> None:
    parts = [b"1\r\n%d\r\n" % number for number in range(5)]
    got: list[bytes] = []
    async with server(says(CHUNKED, *parts, b"0\r\n\r\n", close=False)) as route:
        async with EngineClient() as client, client.post(route, "/v1/x", b"{}", "id") as reply:
            got.append(await reply.pour(got.append))
        assert b"".join(got) == b"01234"

        def refuse(_: bytes) -> None:
            raise LookupError

        async with EngineClient() as client, client.post(route, "/v1/x", b"{}", "id") as reply:
            with pytest.raises(LookupError):
                await reply.pour(refuse)


async def test_closed_connection_refuses_to_ask() -> None:
    upstream = Upstream(asyncio.get_running_loop())
    with pytest.raises(BrokenOffError):
        await upstream.ask(b"")
