"""The way of a request to an engine and back, with the clients that tenants use."""

import asyncio
import contextlib
import json
import random
import re

import httpx
import openai
import pytest

from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat, until
from tests.serving.gateway.fake_controller import ADMIN_KEY, FakeController, model
from tests.serving.gateway.fake_engine import STREAM, TOKENS, FakeEngine

ANSWER = "".join(TOKENS)
MESSAGES = [{"role": "user", "content": "hi"}]


async def collect(stream: openai.AsyncStream) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def test_stream_is_passed_on_byte_for_byte(gateway: Gateway) -> None:
    answer = await gateway.http.post("/v1/chat/completions", json=chat(stream=True))
    assert answer.content == b"".join(STREAM)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


async def test_openai_client_chats_streams_and_completes(gateway: Gateway) -> None:
    async with gateway.openai() as client:
        answer = await client.chat.completions.create(model="demo", messages=MESSAGES)
        assert answer.choices[0].message.content == ANSWER
        stream = await client.chat.completions.create(model="demo", messages=MESSAGES, stream=True)
        assert await collect(stream) == ANSWER
        completion = await client.completions.create(model="demo", prompt="hi")
        assert completion.choices[0].text == ANSWER


async def test_admin_key_may_call_models(gateway: Gateway) -> None:
    async with gateway.openai(ADMIN_KEY) as client:
        answer = await client.chat.completions.create(model="demo", messages=MESSAGES)
        assert answer.choices[0].message.content == ANSWER


async def test_engine_sees_its_own_token_and_nothing_of_the_tenants(
    gateway: Gateway, engine: FakeEngine
) -> None:
    headers = {"x-request-id": "mine-1", "x-data-parallel-rank": "3", "cookie": "a=b"}
    answer = await gateway.http.post("/v1/chat/completions", json=chat(), headers=headers)
    sent = engine.seen[0].headers
    assert answer.headers["x-request-id"] == "mine-1"
    assert re.fullmatch(r"[0-9a-f]{32}-1", sent["x-request-id"])  # the attempt's, of ours
    assert sent["authorization"] == f"Bearer {engine.token}"
    assert set(sent) == {
        "host", "authorization", "content-type", "x-request-id", "content-length"
    }  # fmt: skip


@pytest.mark.parametrize("given", ["", "with space", "x" * 129])
async def test_request_id_is_ours_where_the_tenants_is_not_sane(
    gateway: Gateway, given: str
) -> None:
    answer = await gateway.http.get("/health", headers={"x-request-id": given})
    assert len(answer.headers["x-request-id"]) == 32


async def test_body_reaches_the_engine_as_it_came(gateway: Gateway, engine: FakeEngine) -> None:
    body = chat(top_k=3, logit_bias={"1": 2}, metadata={"deep": [1, None]})
    await gateway.http.post("/v1/chat/completions", json=body)
    salt = engine.seen[0].body.pop("cache_salt")
    assert re.fullmatch(r"[0-9a-f]{32}", salt)
    assert engine.seen[0].body == body


async def test_usage_is_shown_to_a_tenant_who_asks_for_it(
    gateway: Gateway, engine: FakeEngine
) -> None:
    body = chat(stream=True, stream_options={"include_usage": True})
    answer = await gateway.http.post("/v1/chat/completions", json=body)
    assert answer.content == b"".join((*STREAM[:-1], fake_engine.USAGE, STREAM[-1]))


async def test_large_body_within_the_cap_is_passed_on(gateway: Gateway, engine: FakeEngine) -> None:
    text = "x" * (2**20 - 200)
    body = chat(messages=[{"role": "user", "content": text}])
    answer = await gateway.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert engine.seen[0].body["messages"] == body["messages"]


async def test_disconnect_mid_stream_aborts_in_the_engine_and_frees_the_slot(
    gateway: Gateway, engine: FakeEngine
) -> None:
    engine.default = fake_engine.stalls_mid_stream
    async with gateway.openai() as client:
        stream = await client.chat.completions.create(model="demo", messages=MESSAGES, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await until(lambda: engine.aborted == 1)
    assert engine.running == 0
    await gateway.shows(0, "penstock_requests_in_flight")
    await gateway.shows(1, "penstock_requests_total", status="499")


async def test_client_timeout_before_the_first_byte_aborts_in_the_engine(
    gateway: Gateway, engine: FakeEngine
) -> None:
    engine.default = fake_engine.waits
    async with gateway.openai() as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model="demo", messages=MESSAGES, timeout=0.1)
        await until(lambda: engine.aborted == 1)


async def test_request_moves_on_when_an_engine_cannot_be_reached(
    gateway: Gateway, controller: FakeController, engine: FakeEngine, second_engine: FakeEngine
) -> None:
    await engine.stop()
    controller.set_routes(model("demo", engine.route, second_engine.route))
    answers = [
        await gateway.http.post("/v1/chat/completions", json=chat(stream=True)) for _ in range(3)
    ]
    assert [answer.content for answer in answers] == [b"".join(STREAM)] * 3
    assert await gateway.metric("penstock_upstream_retries_total", model="demo") <= 1


@pytest.mark.parametrize(
    "death", [fake_engine.dies_at_once, fake_engine.dies_after_headers,
              fake_engine.fails_in_stream(0), fake_engine.refuses(500, "EngineCore died")]
)  # fmt: skip
async def test_request_is_retried_when_an_engine_dies_before_its_first_byte(
    gateway: Gateway,
    controller: FakeController,
    engine: FakeEngine,
    second_engine: FakeEngine,
    death: fake_engine.Behaviour,
) -> None:
    engine.default = death
    await gateway_follows(gateway, controller, engine, second_engine)
    answer = await gateway.http.post("/v1/chat/completions", json=chat(stream=True))
    assert answer.content == b"".join(STREAM)
    assert len(engine.seen) == 1
    assert await gateway.metric("penstock_upstream_retries_total", model="demo") == 1


async def test_whole_answer_is_retried_when_an_engine_dies_within_it(
    gateway: Gateway, controller: FakeController, engine: FakeEngine, second_engine: FakeEngine
) -> None:
    engine.default = fake_engine.dies_mid_body
    await gateway_follows(gateway, controller, engine, second_engine)
    answer = await gateway.http.post("/v1/chat/completions", json=chat())
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER


async def test_request_that_two_engines_died_of_is_quarantined(
    gateway: Gateway, controller: FakeController, engine: FakeEngine, second_engine: FakeEngine
) -> None:
    engine.default = second_engine.default = fake_engine.dies_at_once
    await gateway_follows(gateway, controller, engine, second_engine)
    async with gateway.openai() as client:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(model="demo", messages=MESSAGES)
            assert caught.value.status_code == 500
            assert caught.value.code == "request_quarantined"
    assert len(engine.seen) + len(second_engine.seen) == 2
    await until(lambda: any(report.quarantined for report in controller.reports))
    (told,) = next(r.quarantined for r in controller.reports if r.quarantined)
    assert sorted(told.engine_ids) == [engine.engine_id, second_engine.engine_id]


async def test_request_whose_engines_were_killed_by_somebody_is_no_poison(
    gateway: Gateway, controller: FakeController, engine: FakeEngine, second_engine: FakeEngine
) -> None:
    engine.script.append(fake_engine.dies_at_once)
    second_engine.script.append(fake_engine.dies_at_once)
    controller.killed = (engine.engine_id, second_engine.engine_id)
    await gateway_follows(gateway, controller, engine, second_engine)
    reports = len(controller.reports)
    await until(lambda: len(controller.reports) >= reports + 2)  # it has read the first's answer
    async with gateway.openai() as client:
        answer = await client.chat.completions.create(model="demo", messages=MESSAGES)
    assert answer.choices[0].message.content
    assert len(engine.seen) + len(second_engine.seen) == 3
    assert not any(report.quarantined for report in controller.reports)


async def test_sole_engine_that_died_is_waited_for(
    gateway: Gateway, controller: FakeController, engine: FakeEngine, second_engine: FakeEngine
) -> None:
    engine.default = fake_engine.dies_at_once
    request = asyncio.create_task(gateway.http.post("/v1/chat/completions", json=chat()))
    await until(lambda: controller.queued() == 1)
    controller.set_routes(model("demo", second_engine.route))
    assert (await request).status_code == 200


async def test_engine_whose_own_queue_is_full_is_waited_for(
    gateway: Gateway, engine: FakeEngine
) -> None:
    engine.script.extend([fake_engine.refuses(503, "queue is full")] * 3)
    answer = await gateway.http.post("/v1/chat/completions", json=chat())
    assert answer.status_code == 200
    assert len(engine.seen) == 4


async def test_death_mid_stream_ends_in_an_error_event(
    gateway: Gateway, engine: FakeEngine
) -> None:
    engine.default = fake_engine.dies_mid_event
    answer = await gateway.http.post("/v1/chat/completions", json=chat(stream=True))
    events = [line for line in answer.text.splitlines() if line]
    assert answer.content.startswith(STREAM[0] + STREAM[1])
    assert len(events) == 3
    error = json.loads(events[2].removeprefix("data: "))["error"]
    assert error["code"] == "engine_error"
    assert error["type"] == "server_error"


@pytest.mark.parametrize("death", [fake_engine.dies_mid_event, fake_engine.fails_in_stream(2)])
async def test_openai_client_raises_when_an_engine_dies_mid_stream(
    gateway: Gateway, engine: FakeEngine, death: fake_engine.Behaviour
) -> None:
    engine.default = death
    got: list[str] = []
    async with gateway.openai() as client:
        stream = await client.chat.completions.create(model="demo", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="broke off") as caught:
            async for chunk in stream:
                got += [chunk.choices[0].delta.content]
    assert got == list(TOKENS[:2])
    assert caught.value.code == "engine_error"


async def test_error_event_of_a_tenants_own_fault_is_a_status_where_it_comes_first(
    gateway: Gateway, engine: FakeEngine
) -> None:
    engine.default = fake_engine.fails_in_stream(0, code=400)
    answer = await gateway.http.post("/v1/chat/completions", json=chat(stream=True))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] is None


async def test_ten_streams_at_once_are_each_their_own(gateway: Gateway, engine: FakeEngine) -> None:
    body = chat(stream=True)
    answers = await asyncio.gather(
        *(gateway.http.post("/v1/chat/completions", json=body) for _ in range(10))
    )
    assert {answer.content for answer in answers} == {b"".join(STREAM)}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 10
    assert engine.most_running <= engine.slots


@pytest.mark.parametrize("stream", [True, False])
async def test_connection_to_an_engine_is_used_again(
    gateway: Gateway, engine: FakeEngine, stream: bool
) -> None:
    for _ in range(10):
        await gateway.http.post("/v1/chat/completions", json=chat(stream=stream))
    assert engine.connections == 1


async def test_no_slot_is_lost_in_a_storm_of_impatient_clients(
    gateway: Gateway, engine: FakeEngine
) -> None:
    patience = random.Random(1)

    async def ask() -> None:
        body = chat(stream=patience.random() < 0.5)
        with contextlib.suppress(httpx.TimeoutException):
            await gateway.http.post(
                "/v1/chat/completions", json=body, timeout=patience.uniform(0.001, 0.05)
            )

    for _ in range(5):
        await asyncio.gather(*(ask() for _ in range(30)))
    async with asyncio.timeout(30):
        while await gateway.metric("penstock_requests_in_flight"):
            pass
    await gateway.shows(0, "penstock_queue_depth")
    await until(lambda: engine.running == 0)
    assert engine.most_running <= engine.slots
    assert (await gateway.http.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_metrics_count_what_the_tenant_saw(gateway: Gateway) -> None:
    await gateway.http.post("/v1/chat/completions", json=chat())
    await gateway.http.post("/v1/chat/completions", json=chat(model="no-such-model"))
    route = "/v1/chat/completions"
    count = "penstock_requests_total"
    await gateway.shows(1, count, model="demo", route=route, status="200")
    await gateway.shows(1, count, model="", route=route, status="404")
    assert await gateway.metric("penstock_time_to_first_byte_seconds_count", model="demo") == 1


async def gateway_follows(
    gateway: Gateway, controller: FakeController, *engines: FakeEngine
) -> None:
    """Routes `demo` to the engines and waits until the gateway knows."""
    routes = [engine.route for engine in engines]
    controller.set_routes(model("demo", *routes), model("routed"))
    await gateway.answers("/v1/models/routed")
