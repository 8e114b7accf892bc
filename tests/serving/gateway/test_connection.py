"""Connections that misbehave: cut or refused, in bounded time and memory; others are unharmed."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable

import psutil
import pytest

from serving.gateway.connection import MAX_HEAD_BYTES, MAX_HEADERS, TenantConnection
from serving.gateway.surface import MAX_VALUES
from serving.settings import GatewaySettings
from tests.serving.gateway import fake_engine
from tests.serving.gateway.by_hand import BODY, head, status_of
from tests.serving.gateway.conftest import Gateway, chat, until
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine, Seen


class Hasty(TenantConnection):
    """Loses patience within a test's time."""

    head_timeout_s = 0.1
    body_pause_s = 0.1


@pytest.fixture
async def hasty_gateway(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> Gateway:
    controller.set_routes(model("demo", engine.route))
    gateway = make_gateway(settings, Hasty)
    await gateway.start()
    return gateway


@pytest.mark.parametrize(
    "beginning",
    [b"", b"P", b"POST /v1/chat", head()[:-2], head("Content-Length: 100"),
     head("Content-Length: 100") + b"{", head("Transfer-Encoding: chunked") + b"5\r\n{"],
)  # fmt: skip
async def test_whoever_dawdles_over_a_request_is_cut(
    hasty_gateway: Gateway, engine: FakeEngine, beginning: bytes
) -> None:
    async with asyncio.timeout(30):
        assert await hasty_gateway.raw(beginning) == b""
    assert (await hasty_gateway.http.post("/v1/chat/completions", json=chat())).status_code == 200
    assert len(engine.seen) == 1


async def test_head_that_trickles_is_cut_all_the_same(hasty_gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty_gateway.port)
    trickle = asyncio.create_task(_trickle(writer, b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 90))
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    trickle.cancel()
    writer.close()


async def test_body_that_trickles_is_cut_all_the_same(hasty_gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty_gateway.port)
    writer.write(head("Content-Length: 100000"))
    trickle = asyncio.create_task(_trickle(writer, b"x" * 3000))
    async with asyncio.timeout(25):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    trickle.cancel()
    writer.close()


async def test_body_of_whoever_was_refused_is_not_read_for_ever(hasty_gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty_gateway.port)
    writer.write(head("Transfer-Encoding: chunked", key="wrong") + b"1\r\nx\r\n")
    answer = await reader.readuntil(b"\r\n\r\n")
    assert status_of(answer) == 401
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            while not writer.transport.is_closing():
                writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.002)
    writer.close()


async def _trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    for place in range(len(data)):
        writer.write(data[place : place + 1])
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(*(f"X-{place}: y" for place in range(MAX_HEADERS))),
        head("X: " + "y" * MAX_HEAD_BYTES),
        b"GET /" + b"x" * (MAX_HEAD_BYTES + 1),
        b"POST / HTTP/1.1\r\nX: " + b"y" * (2 * MAX_HEAD_BYTES),
    ],
)
async def test_flood_of_headers_is_a_431(gateway: Gateway, request_bytes: bytes) -> None:
    answer = await gateway.raw(request_bytes)
    assert status_of(answer) == 431
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "headers_too_large"


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked") + BODY,
        head("Transfer-Encoding: chunked", f"Content-Length: {len(BODY)}") + b"0\r\n\r\n" + BODY,
        head("Content-Length: 5", f"Content-Length: {len(BODY)}") + BODY,
        head(f"Content-Length: +{len(BODY)}") + BODY,
        head(f"Content-Length: {len(BODY)},{len(BODY)}") + BODY,
        head("Content-Length: 0x10") + BODY,
        head("Content-Length: -1") + BODY,
        head("Transfer-Encoding: xchunked") + BODY,
        head("Transfer-Encoding: chunked, identity") + BODY,
        head("Transfer-Encoding: chunked") + b"zz\r\n" + BODY,
        head("Transfer-Encoding: chunked") + b"ffffffffffffffffff\r\n" + BODY,
        head(f"Content-Length : {len(BODY)}") + BODY,
        head(f"Content-Length: {len(BODY)}\r\n X: folded") + BODY,
        head("X: a\x00b", f"Content-Length: {len(BODY)}") + BODY,
        b"GET /health HTTP/1.1\nHost: x\nContent-Length: 10\n\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GARBAGE\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_request_that_two_servers_could_read_differently_is_refused(
    gateway: Gateway, engine: FakeEngine, request_bytes: bytes
) -> None:
    async with asyncio.timeout(30):
        answer = await gateway.raw(request_bytes)
    assert answer == b"" or status_of(answer) in (400, 431)
    assert answer.count(b"HTTP/1.1") <= 1
    assert not engine.seen


async def test_garbage_within_an_answer_cuts_it_and_writes_nothing_into_it(
    gateway: Gateway, engine: FakeEngine
) -> None:
    engine.default = fake_engine.stalls_mid_stream
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps(chat(stream=True)).encode()
    writer.write(head(f"Content-Length: {len(body)}") + body)
    await reader.readuntil(b"penstock")
    writer.write(b"\x00\x01 no HTTP\r\n\r\n")
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP/1.1" not in await reader.read()
    await until(lambda: engine.aborted == 1)
    writer.close()


async def test_pipelined_requests_are_answered_one_after_the_other(gateway: Gateway) -> None:
    one = head(f"Content-Length: {len(BODY)}") + BODY
    last = head(f"Content-Length: {len(BODY)}", "Connection: close") + BODY
    answer = await gateway.raw(one + one + last)
    assert answer.count(b"HTTP/1.1 200") == 3


async def test_endless_body_is_refused_and_not_kept(gateway: Gateway) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head("Transfer-Encoding: chunked"))
    sent = 0
    piece = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    with contextlib.suppress(ConnectionError):
        while sent < 2**30:
            writer.write(piece)
            await writer.drain()
            sent += 2**20
    with contextlib.suppress(ConnectionError):
        answer = await reader.read(100)
        assert not answer or status_of(answer) == 413
    assert sent < 200 * 2**20
    assert process.memory_info().rss - before < 64 * 2**20
    writer.close()


async def test_body_that_is_refused_when_it_is_whole_keeps_its_connection(gateway: Gateway) -> None:
    """Nothing is left to be thrown away: waiting for more would hold it for many seconds."""
    large = b'{"model": "demo", "prompt": [' + b"," * (MAX_VALUES + 1)
    first = head(f"Content-Length: {len(large)}", path="/v1/completions") + large
    second = head(f"Content-Length: {len(BODY)}", "Connection: close") + BODY
    answer = await gateway.raw(first + second)
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.count(b"HTTP/1.1 200") == 1


async def test_neighbours_stream_is_whole_whatever_others_send(
    gateway: Gateway, engine: FakeEngine
) -> None:
    engine.script.append(fake_engine.stalls_mid_stream)
    asked = chat(stream=True)
    neighbour = asyncio.create_task(gateway.http.post("/v1/chat/completions", json=asked))
    await until(lambda: engine.running == 1)
    deep = b"[" * 10_000
    large = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    for bad in (
        head("X: " + "y" * MAX_HEAD_BYTES),
        head(f"Content-Length: {len(deep)}", "Connection: close") + deep,
        head("Transfer-Encoding: chunked", "Connection: close") + large * 4 + b"0\r\n\r\n",
        head("Content-Length: 5", "Transfer-Encoding: chunked") + BODY,
        b"\x16\x03\x01\x02\x00" * 1000,
    ):
        assert 400 <= status_of(await gateway.raw(bad)) < 500
    engine.go_on.set()
    assert (await neighbour).content == b"".join(fake_engine.STREAM)


async def floods(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Streams 64 MiB as fast as they are taken."""
    writer.write(fake_engine.SSE_HEAD)
    part = fake_engine.chunked(fake_engine.event("x" * 60_000))
    for _ in range(1100):
        writer.write(part)
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def test_tenant_who_does_not_read_holds_little_and_is_cut(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    engine.default = floods
    controller.set_routes(model("demo", engine.route))
    gateway = make_gateway(settings.model_copy(update={"slow_client_timeout_s": 0.2}))
    await gateway.start()
    with socket.create_connection(("127.0.0.1", gateway.port)) as lazy:
        body = json.dumps(chat(stream=True)).encode()
        lazy.sendall(head(f"Content-Length: {len(body)}") + body)
        await until(lambda: bool(engine.seen) and not engine.running)
    await gateway.shows(0, "penstock_requests_in_flight")
    await gateway.shows(1, "penstock_requests_total", status="499")


async def test_tenant_who_reads_slowly_gets_all_of_it(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    engine.default = floods
    controller.set_routes(model("demo", engine.route))
    gateway = make_gateway(settings.model_copy(update={"slow_client_timeout_s": 2.0}))
    await gateway.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=2**16)
    body = json.dumps(chat(stream=True)).encode()
    writer.write(head(f"Content-Length: {len(body)}", "Connection: close") + body)
    size = 0
    while part := await reader.read(2**16):
        size += len(part)
        if size < 2**21:
            await asyncio.sleep(0.005)
    assert size > 1100 * 60_000
    writer.close()


async def test_tenant_who_leaves_after_a_large_body_is_noticed(
    gateway: Gateway, engine: FakeEngine
) -> None:
    engine.default = fake_engine.stalls_mid_stream
    message = {"role": "user", "content": "x" * 600_000}
    body = json.dumps(chat(messages=[message], stream=True)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head(f"Content-Length: {len(body)}") + body)
    await reader.readuntil(b"penstock")
    writer.close()
    await until(lambda: engine.aborted == 1)
