"""Servers that others run: the same way, in their own words."""

import asyncio
import json
from collections.abc import Callable

from serving.settings import GatewaySettings
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat, until
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine


async def test_server_elsewhere_gets_its_own_model_name_and_nothing_of_vllms(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    there = {"external": True, "model": "gpt-9", "url": f"http://127.0.0.1:{engine.port}/base"}
    controller.set_routes(model("demo", engine.route.model_copy(update=there)))
    gateway = make_gateway(settings)
    await gateway.start()
    answer = await gateway.http.post("/v1/chat/completions", json=chat(stream=True))
    assert answer.content == b"".join(fake_engine.STREAM)
    seen = engine.seen[0]
    assert seen.path == "/base/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {engine.token}"
    assert seen.body == json.loads(
        json.dumps(chat(stream=True, stream_options={"include_usage": True}) | {"model": "gpt-9"})
    )


async def test_server_elsewhere_has_the_same_keys_slots_and_metering(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    there = {"external": True, "model": "gpt-9", "slots": 1}
    controller.set_routes(model("demo", engine.route.model_copy(update=there)))
    controller.leases = {engine.engine_id: 1}
    gateway = make_gateway(settings)
    await gateway.start()
    engine.default = fake_engine.waits
    path = "/v1/chat/completions"
    nobody = await gateway.http.post(path, json=chat(), headers={"Authorization": "Bearer x"})
    assert nobody.status_code == 401
    asked = [asyncio.create_task(gateway.http.post(path, json=chat())) for _ in range(3)]
    await until(lambda: controller.queued() == 2)
    assert engine.running == 1
    engine.go_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    await until(lambda: len(controller.usage) == 3)
    assert {row.model for row in controller.usage.values()} == {"demo"}
