"""Clients who are told that their stream still waits, and what becomes of it then."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest

from serving.gateway.keepalive import COMMENT, LEAST_S, MOST_S, keep_alive_after_s
from serving.protocol import ModelState
from serving.settings import GatewaySettings
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

PATH = "/v1/chat/completions"
SOON = {"x-penstock-keep-alive-s": "0.1"}


@asynccontextmanager
async def waiting(
    gateway: Gateway, headers: dict[str, str] | None = None
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
    """A stream of a sleeping model that has had its first comment."""
    body = chat(model="asleep", stream=True)
    async with gateway.http.stream("POST", PATH, json=body, headers=headers or SOON) as answer:
        arriving = answer.aiter_bytes()
        first = await anext(arriving)
        assert first.startswith(COMMENT)  # on a busy machine more may have come with it
        yield answer, after(first.removeprefix(COMMENT), arriving)


async def after(first: bytes, arriving: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in arriving:
        yield part


async def rest(arriving: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in arriving]).replace(COMMENT, b"")


def error_of(event: bytes) -> dict[str, object]:
    (data,) = [line for line in event.splitlines() if line.startswith(b"data: ")]
    return orjson.loads(data.removeprefix(b"data: "))["error"]


async def test_waiting_stream_gets_comments_and_then_its_answer(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    async with waiting(gateway) as (answer, arriving):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-request-id"]
        controller.set_routes(model("asleep", engine.route))
        assert await rest(arriving) == b"".join(fake_engine.STREAM)


async def test_manifest_allows_comments_too(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    route = model("asleep").model_copy(update={"keep_alive_s": 0.1})
    controller.set_routes(model("demo", engine.route), route)
    await gateway.answers("/ready")
    async with asyncio.timeout(30):
        while True:  # until the gateway has heard of it
            body = chat(model="asleep", stream=True)
            async with gateway.http.stream("POST", PATH, json=body) as answer:
                if (await anext(answer.aiter_bytes())).startswith(COMMENT):
                    return


async def test_failed_model_ends_a_waiting_stream_with_an_error_event(
    gateway: Gateway, controller: FakeController
) -> None:
    async with waiting(gateway) as (_, arriving):
        controller.set_routes(model("asleep", state=ModelState.FAILED, reason="broken"))
        assert error_of(await rest(arriving))["code"] == "model_failed"


async def test_deadline_ends_a_waiting_stream_with_an_error_event(
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    settings: GatewaySettings,
) -> None:
    controller.set_routes(model("asleep"))
    gateway = make_gateway(settings.model_copy(update={"deadline_s": 0.3}))
    await gateway.start()
    async with waiting(gateway) as (_, arriving):
        assert error_of(await rest(arriving))["code"] == "deadline_exceeded"


async def test_refusal_of_the_engine_ends_a_waiting_stream_with_its_words(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.script.append(fake_engine.refuses(400, "too long"))
    async with waiting(gateway) as (_, arriving):
        controller.set_routes(model("asleep", engine.route))
        assert error_of(await rest(arriving))["type"] == "invalid_request_error"


async def test_nobody_who_did_not_ask_gets_comments(
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    settings: GatewaySettings,
) -> None:
    controller.set_routes(model("asleep"))
    gateway = make_gateway(settings.model_copy(update={"deadline_s": 0.3}))
    await gateway.start()
    plain = await gateway.http.post(PATH, json=chat(model="asleep", stream=True))
    whole = await gateway.http.post(PATH, json=chat(model="asleep"), headers=SOON)
    assert [plain.status_code, whole.status_code] == [503, 503]


@pytest.mark.parametrize(
    ("asked", "manifest_s", "after_s"),
    [
        (None, None, None),
        (None, 2.0, 2.0),
        (b"5", 2.0, 5.0),
        (b"0", 2.0, None),
        (b"0.001", None, LEAST_S),
        (b"1e9", None, MOST_S),
        (b"inf", 2.0, 2.0),
        (b"nan", None, None),
        (b"soon", None, None),
        (b"-1", None, None),
    ],
)
def test_header_counts_before_the_manifest(
    asked: bytes | None, manifest_s: float | None, after_s: float | None
) -> None:
    headers = [] if asked is None else [(b"x-penstock-keep-alive-s", asked)]
    assert keep_alive_after_s(headers, manifest_s, streams=True) == after_s
    assert keep_alive_after_s(headers, manifest_s, streams=False) is None
