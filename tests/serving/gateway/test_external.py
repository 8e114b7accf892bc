"""Servers that others run: the same way, in their own words."""

import json
from collections.abc import Callable

from serving.settings import GatewaySettings
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat
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
