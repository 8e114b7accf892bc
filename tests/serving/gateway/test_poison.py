"""A request that engines die of: it takes two of them at most, and its neighbours nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from serving.settings import GatewaySettings
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine, Seen

POISON = "poison"
PATIENCE_S = 120.0
PATH = "/v1/chat/completions"


async def dies_of_poison(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    if POISON in json.dumps(seen.body):
        engine.death = asyncio.create_task(engine.stop())  # type: ignore[attr-defined]
        await asyncio.sleep(10)
    await asyncio.sleep(0.02)  # long enough for the poison to come beside others
    await fake_engine.answers(engine, seen, writer)


@pytest.fixture
async def engines() -> AsyncIterator[list[FakeEngine]]:
    made = [FakeEngine(f"engine-{number}", slots=8) for number in range(4)]
    for one in made:
        one.default = dies_of_poison
        await one.start()
    yield made
    for one in made:
        await one.stop()


async def test_poison_takes_two_engines_at_most_and_harms_no_other_request(
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    engines: list[FakeEngine],
    settings: GatewaySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a busy machine nothing may hang on how long something takes: neither the line's deadline,
    # nor when an engine counts as having survived a request that shows no byte.
    monkeypatch.setattr("serving.gateway.lane.TRIAL_S", PATIENCE_S)
    controller.set_routes(model("demo", *(one.route for one in engines)))
    gateway = make_gateway(settings.model_copy(update={"deadline_s": PATIENCE_S}))
    gateway.http.timeout = PATIENCE_S
    await gateway.start()

    async def ask(text: str, *, stream: bool) -> int:
        body = chat(messages=[{"role": "user", "content": text}], stream=stream)
        return (await gateway.http.post(PATH, json=body)).status_code

    requests = []
    for number in range(60):
        if number == 30:
            poison = asyncio.create_task(ask(POISON, stream=True))
        requests.append(asyncio.create_task(ask(f"bread {number}", stream=number % 2 == 0)))
        await asyncio.sleep(0.002)
    assert await poison == 500
    assert set(await asyncio.gather(*requests)) == {200}
    dead = [one for one in engines if one._server is None]
    assert 1 <= len(dead) <= 2
    assert await ask(POISON, stream=True) == 500  # refused: it reaches no engine any more
    tasted = [seen for one in engines for seen in one.seen if POISON in json.dumps(seen.body)]
    assert len(tasted) == 2
