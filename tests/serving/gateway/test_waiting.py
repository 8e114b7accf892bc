"""Requests for models that sleep, wake, fail or are full; and life without the controller."""

import asyncio
import stat
from collections.abc import Callable

import openai
import pytest

from serving.protocol import ModelState
from serving.settings import GatewaySettings
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat, until
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


async def test_sleeping_model_is_reported_at_once_and_served_when_it_wakes(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    for _ in range(5):  # a busy machine may hold the gateway up once, or twice
        controller.reported.clear()
        await controller.reported.wait()  # the next regular report is a quarter of a second away
        before = len(controller.reports)
        asking = gateway.http.post(PATH, json=chat(model="asleep", stream=True))
        request = asyncio.create_task(asking)
        await until(lambda: controller.queued("asleep") == 1)
        told = [one for report in controller.reports[before:] for one in report.models]
        demand = next(one for one in told if one.model == "asleep" and one.queued)
        if demand.oldest_wait_s < 0.1:
            break
        request.cancel()
        await until(lambda: controller.queued("asleep") == 0)
    assert demand.oldest_wait_s < 0.1
    assert demand.start_id
    assert demand.arrivals == 1
    controller.set_routes(model("demo"), model("asleep", engine.route))
    assert (await request).content == b"".join(fake_engine.STREAM)


async def test_thirty_requests_wait_for_one_wake(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    requests = [
        asyncio.create_task(gateway.http.post(PATH, json=chat(model="asleep"))) for _ in range(30)
    ]
    await until(lambda: controller.queued("asleep") == 30)
    controller.set_routes(model("asleep", engine.route))
    assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}
    assert engine.most_running <= engine.slots


async def test_client_who_stops_waiting_leaves_the_line(
    gateway: Gateway, controller: FakeController
) -> None:
    async with gateway.openai() as client:
        request = asyncio.create_task(
            client.chat.completions.create(model="asleep", messages=MESSAGES, timeout=0.1)
        )
        await until(lambda: controller.queued("asleep") == 1)
        with pytest.raises(openai.APITimeoutError):
            await request
    await until(lambda: controller.queued("asleep") == 0)
    assert await gateway.metric("penstock_queue_depth", model="asleep") == 0


async def test_deadline_is_a_503_with_retry_after(
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    settings: GatewaySettings,
) -> None:
    controller.set_routes(model("asleep"))
    gateway = make_gateway(settings.model_copy(update={"deadline_s": 0.1}))
    await gateway.start()
    async with gateway.openai() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="asleep", messages=MESSAGES)
    assert caught.value.status_code == 503
    assert caught.value.code == "deadline_exceeded"
    assert int(caught.value.response.headers["retry-after"]) >= 1


async def test_full_queue_is_a_429_with_retry_after(
    gateway: Gateway, controller: FakeController, settings: GatewaySettings, engine: FakeEngine
) -> None:
    requests = [
        asyncio.create_task(gateway.http.post(PATH, json=chat(model="asleep")))
        for _ in range(settings.max_queued)
    ]
    await until(lambda: controller.queued("asleep") == settings.max_queued)
    async with gateway.openai() as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="asleep", messages=MESSAGES)
    assert caught.value.code == "queue_full"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    controller.set_routes(model("asleep", engine.route))
    assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}


async def test_failed_model_is_a_503_at_once_with_the_reason(
    gateway: Gateway, controller: FakeController
) -> None:
    request = asyncio.create_task(gateway.http.post(PATH, json=chat(model="asleep")))
    await until(lambda: controller.queued("asleep") == 1)
    controller.set_routes(model("asleep", state=ModelState.FAILED, reason="no config.json"))
    for answer in (await request, await gateway.http.post(PATH, json=chat(model="asleep"))):
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "model_failed"
        assert "no config.json" in answer.json()["error"]["message"]


async def test_lease_bounds_what_runs_in_an_engine(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    controller.leases = {engine.engine_id: 2}
    reports = len(controller.reports)
    await until(lambda: len(controller.reports) >= reports + 2)
    engine.default = fake_engine.waits
    requests = [asyncio.create_task(gateway.http.post(PATH, json=chat())) for _ in range(8)]
    await until(lambda: controller.queued() == 6)
    assert engine.running == 2
    engine.go_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}
    assert engine.most_running == 2


async def test_running_requests_are_reported_for_each_engine(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.default = fake_engine.waits
    request = asyncio.create_task(gateway.http.post(PATH, json=chat()))
    await until(
        lambda: any(
            demand.in_flight == {engine.engine_id: 1} for demand in controller.reports[-1].models
        )
    )
    engine.go_on.set()
    assert (await request).status_code == 200


async def test_awake_model_is_served_while_the_controller_is_away(
    gateway: Gateway, controller: FakeController
) -> None:
    await controller.stop()
    for _ in range(3):
        assert (await gateway.http.post(PATH, json=chat())).status_code == 200


async def test_sleeper_waits_for_the_controller_to_come_back(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    await controller.stop()
    request = asyncio.create_task(gateway.http.post(PATH, json=chat(model="asleep")))
    while await gateway.metric("penstock_queue_depth", model="asleep") == 0:
        pass
    controller.reports.clear()
    await controller.start()
    await until(lambda: controller.queued("asleep") == 1)
    assert controller.reports[-1].models[0].arrivals + controller.reports[0].models[0].arrivals
    controller.set_routes(model("asleep", engine.route))
    assert (await request).status_code == 200


async def test_restarted_gateway_serves_from_disk_without_the_controller(
    gateway: Gateway,
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    settings: GatewaySettings,
) -> None:
    files = [settings.gateway_state_dir / f"{name}.json" for name in ("routes", "identities")]
    await until(lambda: all(file.exists() for file in files))
    await controller.stop()
    successor = make_gateway(settings)
    await successor.start()
    assert (await successor.http.post(PATH, json=chat())).status_code == 200
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_engine_killed_under_load_costs_time_only(
    gateway: Gateway, controller: FakeController, engine: FakeEngine, second_engine: FakeEngine
) -> None:
    engine.default = fake_engine.waits
    requests = [asyncio.create_task(gateway.http.post(PATH, json=chat())) for _ in range(8)]
    await until(lambda: engine.running == engine.slots)
    await engine.stop()
    controller.set_routes(model("demo", second_engine.route))
    assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}
