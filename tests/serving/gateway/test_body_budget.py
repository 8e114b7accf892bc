"""Bodies of all requests together: counted, bounded, shared; and the gateway that refuses."""

import asyncio
import json
from collections.abc import Callable

import pytest

from serving.gateway.body_budget import SMALL_BYTES, BodiesFullError, BodyBudget, Held
from serving.gateway.surface import MAX_VALUES
from serving.settings import GatewaySettings
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat, until
from tests.serving.gateway.fake_controller import TENANT_KEY, FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

MIB = 2**20
PATH = "/v1/chat/completions"


def test_no_owner_has_more_than_half() -> None:
    budget = BodyBudget(100 * MIB)
    first, second, third = Held(budget, "a"), Held(budget, "a"), Held(budget, "b")
    first.grow_to(30 * MIB)
    with pytest.raises(BodiesFullError):
        second.grow_to(21 * MIB)
    second.grow_to(20 * MIB)
    third.grow_to(50 * MIB)
    assert budget.held == 100 * MIB
    with pytest.raises(BodiesFullError) as caught:
        Held(budget, "c").grow_to(MIB)
    assert caught.value.status == 503
    assert caught.value.retry_after_s


def test_small_bodies_always_pass() -> None:
    budget = BodyBudget(MIB)
    Held(budget, "a").grow_to(MIB // 2)
    small = Held(budget, "a")
    small.grow_to(SMALL_BYTES)
    small.release()
    assert budget.held == MIB // 2


def test_what_was_held_is_free_again_once() -> None:
    budget = BodyBudget(100 * MIB)
    mine = Held(budget, "a")
    for size in (MIB, 10 * MIB, 5 * MIB):  # a body that grows; a smaller one changes nothing
        mine.grow_to(size)
    assert budget.held == 10 * MIB
    mine.release()
    mine.release()
    assert budget.held == 0


def large(stream: bool = True) -> bytes:
    text = "x" * (400 * 1024)
    return json.dumps(chat(messages=[{"role": "user", "content": text}], stream=stream)).encode()


async def test_bodies_past_the_budget_are_a_503_and_short_prompts_pass(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    engine.default = fake_engine.stalls_mid_stream
    controller.set_routes(model("demo", engine.route))
    gateway = make_gateway(settings.model_copy(update={"bodies_mib": 2.0}))
    await gateway.start()
    body = large()
    request = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TENANT_KEY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    connections = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(2)]
    for reader, writer in connections:
        writer.write(request)
        await reader.readuntil(b"penstock")  # the stream has begun: the body is held
    refused = await gateway.http.post(PATH, content=body)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "bodies_full"
    assert int(refused.headers["retry-after"]) >= 1
    engine.default = fake_engine.answers
    assert (await gateway.http.post(PATH, json=chat())).status_code == 200
    for _, writer in connections:
        writer.close()
    await until(lambda: engine.aborted == 2)
    async with asyncio.timeout(30):
        while (await gateway.http.post(PATH, content=large(stream=False))).status_code != 200:
            pass  # each turn waits for an answer


async def test_body_of_countless_values_is_a_413(gateway: Gateway, engine: FakeEngine) -> None:
    values = b"{}," * 10
    body = b'{"model": "demo", "messages": [' + values * 34_000
    assert len(body) < MIB  # the cap of this gateway
    assert (await gateway.http.post(PATH, content=body)).status_code == 400
    prompt = b'{"model": "demo", "prompt": [' + b"," * (MAX_VALUES + 1)
    answer = await gateway.http.post("/v1/completions", content=prompt)
    assert answer.status_code == 413
    assert "values" in answer.json()["error"]["message"]
    assert not engine.seen
