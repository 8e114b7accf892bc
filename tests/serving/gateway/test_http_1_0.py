"""Clients of HTTP/1.0: no chunks, and the end of the connection is the end of the answer."""

import json

import pytest

from tests.serving.gateway import fake_engine
from tests.serving.gateway.by_hand import BODY, head, status_of
from tests.serving.gateway.conftest import Gateway, chat
from tests.serving.gateway.fake_engine import FakeEngine


def old(body: bytes, *lines: str) -> bytes:
    """A request of HTTP/1.0."""
    asked = head(f"Content-Length: {len(body)}", *lines).replace(b"HTTP/1.1", b"HTTP/1.0")
    return asked + body


async def test_client_of_http_1_0_gets_a_stream_without_chunks(gateway: Gateway) -> None:
    body = json.dumps(chat(stream=True)).encode()
    new = await gateway.http.post("/v1/chat/completions", content=body)
    answer = await gateway.raw(old(body))
    given, text = answer.split(b"\r\n\r\n", 1)
    assert status_of(answer) == 200
    assert b"transfer-encoding" not in given.lower()
    assert b"connection: close" in given.lower()
    assert text == new.content


@pytest.mark.parametrize("lines", [(), ("Connection: keep-alive",), ("Expect: 100-continue",)])
async def test_client_of_http_1_0_gets_a_whole_answer_and_its_end(
    gateway: Gateway, lines: tuple[str, ...]
) -> None:
    answer = await gateway.raw(old(BODY, *lines))
    given, text = answer.split(b"\r\n\r\n", 1)
    assert status_of(answer) == 200
    assert b"transfer-encoding" not in given.lower()
    assert json.loads(text)["choices"]


async def test_client_of_http_1_0_needs_no_host(gateway: Gateway) -> None:
    assert status_of(await gateway.raw(b"GET /health HTTP/1.0\r\n\r\n")) == 200


async def test_stream_that_breaks_tells_a_client_of_http_1_0(
    gateway: Gateway, engine: FakeEngine
) -> None:
    engine.default = fake_engine.dies_mid_event
    answer = await gateway.raw(old(json.dumps(chat(stream=True)).encode()))
    assert b'data: {"error":' in answer
    assert answer.endswith(b"\n\n")
