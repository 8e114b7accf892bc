"""A stream's way to the tenant: what passes as it came, and what is taken apart."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from serving.gateway.connection import Tenant
from serving.gateway.relay import EngineError, Relay
from serving.gateway.replies import EngineReply
from serving.gateway.stream import Transcript, WholeLines
from serving.gateway.upstream import Upstream
from tests.serving.gateway.chunks import END, WORD, chunk

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'


class Wire:
    """The transport of an engine's connection."""

    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...


class Reader:
    """A tenant who reads all."""

    def __init__(self, takes_chunks: bool = True) -> None:
        self.way_of_chunks = self.as_it_came if takes_chunks else None
        self.full = False
        self.on_full: object = None
        self.on_room: object = None
        self.as_they_came: list[bytes] = []
        self.bodies: list[bytes] = []

    def write(self, body: bytes) -> None:
        self.bodies.append(body)

    def as_it_came(self, chunks: bytes) -> None:
        self.as_they_came.append(chunks)


async def relayed(
    parts: list[bytes], reader: Reader, transcript: Transcript | None = None
) -> Transcript:
    """Relays an engine's answer that comes in these parts, the first of which has its head."""
    upstream = Upstream(asyncio.get_running_loop())
    upstream.connection_made(cast("asyncio.Transport", Wire()))
    asking = asyncio.create_task(upstream.ask(b"POST"))
    await asyncio.sleep(0)
    upstream.data_received(parts[0])
    await asking
    transcript = transcript or Transcript(hide_usage=True)
    relay = Relay(EngineReply(upstream), cast("Tenant", reader), transcript, WholeLines(), 30.0)
    running = asyncio.create_task(relay.run())
    await asyncio.sleep(0)
    for part in parts[1:]:
        upstream.data_received(part)
    if last := await running:
        reader.write(last)
    return transcript


async def test_events_pass_as_they_came_and_are_counted() -> None:
    reader = Reader()
    parts = [HEAD, chunk(WORD), chunk(WORD), chunk(WORD) * 2, chunk(b"data: [DONE]\n\n") + END]
    transcript = await relayed(parts, reader)
    assert reader.as_they_came == [chunk(WORD), chunk(WORD) * 2]  # the first found the parser
    assert reader.bodies == [WORD, b"data: [DONE]\n\n"]
    assert transcript.delivered == 4


async def test_tenant_without_chunks_gets_bodies() -> None:
    reader = Reader(takes_chunks=False)
    await relayed([HEAD, chunk(WORD), chunk(WORD), END], reader)
    assert reader.bodies == [WORD, WORD]
    assert reader.as_they_came == []


async def test_usage_is_found_and_hidden_between_events_that_pass() -> None:
    reader = Reader()
    parts = [HEAD + chunk(WORD), chunk(WORD), chunk(USAGE), chunk(WORD), END]
    transcript = await relayed(parts, reader)
    assert transcript.tokens is not None
    assert transcript.tokens.completion == 4
    assert b"".join(reader.as_they_came + reader.bodies).count(b"word") == 3
    assert b"usage" not in b"".join(reader.bodies + reader.as_they_came)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 60])
async def test_stream_is_the_same_however_it_is_cut_up(size: int) -> None:
    whole = HEAD + chunk(WORD) * 3 + chunk(WORD[:9]) + chunk(WORD[9:]) + chunk(WORD) * 2 + END
    parts = [HEAD] + [whole[at : at + size] for at in range(len(HEAD), len(whole), size)]
    order: list[bytes] = []

    class InOrder(Reader):
        def write(self, body: bytes) -> None:
            order.append(body)

        def as_it_came(self, chunks: bytes) -> None:
            parsed = SimpleNamespace(rest=chunks)
            while parsed.rest:
                digits, _, rest = parsed.rest.partition(b"\r\n")
                order.append(rest[: int(digits, 16)])
                parsed.rest = rest[int(digits, 16) + 2 :]

    transcript = await relayed(parts, InOrder())
    assert b"".join(order) == WORD * 6
    assert transcript.delivered == 6


async def test_error_among_events_that_pass_ends_the_stream() -> None:
    error = b'data: {"error":{"code":500}}\n\n'
    reader = Reader()
    with pytest.raises(EngineError):
        await relayed([HEAD, chunk(WORD), chunk(WORD), chunk(WORD + error)], reader)
    assert reader.as_they_came == [chunk(WORD)]
    assert reader.bodies == [WORD, WORD]
