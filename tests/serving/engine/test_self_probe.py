"""An engine's probe of itself: what counts as an answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from models.errors import UpstreamError
from serving.engine.self_probe import probe_self


@asynccontextmanager
async def answering(answer: bytes, seen: list[bytes] | None = None) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def probe(port: int) -> None:
    await probe_self("127.0.0.1", port, "t0", "/v1/completions", {"prompt": "1"})


async def test_probe_asks_with_the_engines_token() -> None:
    seen: list[bytes] = []
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", seen) as port:
        await probe(port)
    assert b"authorization: bearer t0\r\n" in seen[0].lower()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "with 500"),
        (b"", "with nothing"),
        (b"nonsense", "with nothing"),
    ],
)
async def test_probe_takes_nothing_but_success(answer: bytes, said: str) -> None:
    async with answering(answer) as port:
        with pytest.raises(UpstreamError, match=said):
            await probe(port)


async def test_probe_of_a_closed_port_fails() -> None:
    async with answering(b"") as port:
        pass
    with pytest.raises(UpstreamError, match="did not answer"):
        await probe(port)
