"""Servers that others run: the same keys, limits, line and metering, and nothing that leaks."""

import asyncio
import json
import time
from collections.abc import Callable

import httpx
import pytest

from serving.gateway.elsewhere import (
    LONGEST_REST_S,
    REST_S,
    SILENT_S,
    rest_s,
    without_tokens,
)
from serving.gateway.engines import EngineClient
from serving.gateway.replies import EngineBrokeError
from serving.gateway.tickets import Ticket
from serving.protocol import EndpointRoute, RoutesDelta
from serving.settings import GatewaySettings
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat, there, until
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine, Seen
from tests.serving.gateway.test_limits import apply, limit
from tests.serving.gateway.test_metering import only_row
from tests.serving.gateway.test_watch import world

PATH = "/v1/chat/completions"


async def test_server_elsewhere_gets_its_own_model_name_and_nothing_of_vllms(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    route = there(engine, url=f"http://127.0.0.1:{engine.port}/base")
    controller.set_routes(model("demo", route))
    gateway = make_gateway(settings)
    await gateway.start()
    answer = await gateway.http.post(PATH, json=chat(stream=True))
    assert answer.content == b"".join(fake_engine.STREAM)
    seen = engine.seen[0]
    assert seen.path == "/base/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {engine.token}"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.body == json.loads(
        json.dumps(chat(stream=True, stream_options={"include_usage": True}) | {"model": "gpt-9"})
    )


async def test_server_elsewhere_has_the_same_keys_slots_and_metering(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    controller.set_routes(model("demo", there(engine, slots=1)))
    controller.leases = {engine.engine_id: 1}
    gateway = make_gateway(settings)
    await gateway.start()
    engine.default = fake_engine.waits
    nobody = await gateway.http.post(PATH, json=chat(), headers={"Authorization": "Bearer x"})
    assert nobody.status_code == 401
    asked = [asyncio.create_task(gateway.http.post(PATH, json=chat())) for _ in range(3)]
    await until(lambda: controller.queued() == 2)
    assert engine.running == 1
    engine.go_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    await until(lambda: len(controller.usage) == 3)
    assert {row.model for row in controller.usage.values()} == {"demo"}


async def test_limits_hold_and_refuse_before_the_server_is_asked(
    outside: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    await apply(outside, controller, limit(requests_per_min=1))
    answers = [await outside.http.post(PATH, json=chat()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].json()["error"]["code"] == "rate_limit_exceeded"
    assert answers[1].headers["x-ratelimit-limit-requests"] == "1"
    assert len(engine.seen) == 1


async def test_server_without_room_is_left_alone_for_a_while_and_the_request_waits(
    outside: Gateway, engine: FakeEngine
) -> None:
    words = "Rate limit reached in organization org-of-the-operator"
    engine.script.append(fake_engine.refuses(429, words, head="retry-after: 1\r\n"))
    began_s = time.monotonic()
    answer = await outside.http.post(PATH, json=chat())
    assert answer.status_code == 200
    assert time.monotonic() - began_s >= 0.9  # as long as it asked for
    assert len(engine.seen) == 2


async def test_quota_of_the_operators_that_is_spent_is_a_503_and_not_the_tenants_429(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    controller.set_routes(model("demo", there(engine)))
    engine.default = fake_engine.refuses(429, "quota of org-of-the-operator")
    gateway = make_gateway(settings.model_copy(update={"deadline_s": 0.5}))
    await gateway.start()
    answer = await gateway.http.post(PATH, json=chat())
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "org-of-the-operator" not in answer.text
    assert len(engine.seen) == 1


def test_rest_follows_the_servers_word_within_bounds() -> None:
    assert rest_s("7") == 7.0
    assert rest_s("86400") == LONGEST_REST_S
    for odd in (None, "", "0", "-5", "nan", "inf", "Wed, 21 Oct 2026 07:28:00 GMT"):
        assert rest_s(odd) == REST_S


async def test_failing_server_is_tried_twice_and_is_a_bad_gateway(
    outside: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.default = fake_engine.refuses(500, "stack trace of another house")
    answer = await outside.http.post(PATH, json=chat())
    assert answer.status_code == 502
    assert "stack trace" not in answer.text
    assert len(engine.seen) == 2
    assert (await only_row(controller)).status == "failed"


async def test_other_server_answers_where_one_fails(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    second_engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    controller.set_routes(model("demo", there(engine), there(second_engine)))
    gateway = make_gateway(settings)
    await gateway.start()
    await engine.stop()
    second_engine.script.append(fake_engine.refuses(502, "bad gateway"))
    for _ in range(2):
        assert (await gateway.http.post(PATH, json=chat())).status_code == 200


async def test_request_that_a_server_elsewhere_broke_off_is_not_put_into_quarantine(
    outside: Gateway, engine: FakeEngine
) -> None:
    """Its server is not ours to protect, and a flaky one must not cost tenants their prompts."""
    engine.script.extend([fake_engine.dies_at_once] * 2)
    assert (await outside.http.post(PATH, json=chat())).status_code == 502  # and not a 500


async def test_server_that_never_answers_costs_nothing_and_is_given_up(
    outside: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.default = fake_engine.waits
    with pytest.raises(httpx.ReadTimeout):
        await outside.http.post(PATH, json=chat(), timeout=0.2)
    row = await only_row(controller)
    assert (row.status, row.prompt, row.completion) == ("cancelled", 0, 0)
    async with EngineClient(elsewhere_within_s=0.05) as client:
        with pytest.raises(EngineBrokeError, match="in time"):
            async with client.post(there(engine), PATH, b"{}", "id"):
                pass
        ours = asyncio.create_task(_asked(client, engine.route))  # an engine is judged by its steps
        await until(lambda: engine.running == 1)
        await asyncio.sleep(0.1)
        engine.go_on.set()
        assert await ours == 200


async def _asked(client: EngineClient, route: EndpointRoute) -> int:
    async with client.post(route, PATH, b"{}", "id") as reply:
        await reply.whole_body()
        return reply.status


async def test_server_that_thinks_for_minutes_is_not_taken_to_hang() -> None:
    lanes, wires, watch = world("ours")
    outside = next(iter(lanes.get("demo").balancer)).route.model_copy(
        update={"engine_id": "theirs", "external": True}
    )
    both = (model("demo", *lanes.get("demo").route.endpoints), model("far", outside))
    lanes.apply(RoutesDelta(version=2, full=True, models=both))
    (endpoint,) = lanes.get("far").balancer
    endpoint.take(Ticket("t", 0.0, 99.0, prompt_tokens=5))
    wires.accounts["theirs"] = "same"  # of a page that is no engine's account
    began_s = time.monotonic()
    for second in range(int(SILENT_S)):
        wires.heard["ours"] = second
        await watch.look(began_s + second)
    assert watch.suspects == ()
    for second in range(int(SILENT_S), int(SILENT_S) + 20):
        wires.heard["ours"] = second
        await watch.look(began_s + second)
    assert watch.suspects == ("theirs",)
    assert set(wires.broken) == {"theirs"}


async def test_servers_key_never_reaches_a_tenant_or_the_log(
    outside: Gateway, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    words = f"Incorrect key provided: {engine.token}, see the request 'Bearer {engine.token}'"
    shown = {400: 400, 401: 502, 403: 502, 404: 502, 422: 422, 500: 502}
    for status, seen in shown.items():
        engine.default = fake_engine.refuses(status, words, head=f"x-key: {engine.token}\r\n")
        answer = await outside.http.post(PATH, json=chat())
        assert answer.status_code == seen
        assert engine.token not in answer.text
        assert engine.token not in str(answer.headers)
    assert engine.token not in caplog.text


@pytest.mark.parametrize("after", [0, 2])
async def test_servers_key_never_stands_in_a_stream_that_fails(
    outside: Gateway, engine: FakeEngine, caplog: pytest.LogCaptureFixture, after: int
) -> None:
    async def fails(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
        error = {"message": f"bad key {engine.token}", "code": 400}
        writer.write(fake_engine.SSE_HEAD)
        for part in fake_engine.STREAM[:after]:
            writer.write(fake_engine.chunked(part))
        writer.write(
            fake_engine.chunked(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
        )
        writer.write(b"0\r\n\r\n")

    engine.script.append(fails)
    answer = await outside.http.post(PATH, json=chat(stream=True))
    assert "bad key ***" in answer.text
    assert engine.token not in answer.text
    assert engine.token not in caplog.text


def test_short_tokens_are_left_in_words(engine: FakeEngine) -> None:
    route = model("demo", there(engine, token="a"))
    assert without_tokens(b"a bad request", route) == b"a bad request"


async def test_redirect_is_not_followed(
    outside: Gateway, engine: FakeEngine, second_engine: FakeEngine
) -> None:
    location = f"location: http://127.0.0.1:{second_engine.port}/v1/chat/completions\r\n"
    for status in (301, 302, 307, 308):
        engine.script.append(fake_engine.refuses(status, "moved", head=location))
        answer = await outside.http.post(PATH, json=chat())
        assert answer.status_code == 502
        assert "location" not in answer.headers
    assert not second_engine.connections
