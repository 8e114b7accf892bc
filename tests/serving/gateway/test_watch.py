"""The watch: a hanging engine's requests end and the controller hears of it; a slow one rests."""

import asyncio
import time
from collections.abc import Set

import pytest

from serving.gateway.engines import EngineClient
from serving.gateway.lanes import Lanes
from serving.gateway.pace import ENOUGH
from serving.gateway.places import LaneLimits
from serving.gateway.replies import EngineBrokeError
from serving.gateway.tickets import Ticket
from serving.gateway.watch import Watch
from serving.protocol import EndpointRoute, RoutesDelta
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import until
from tests.serving.gateway.fake_controller import model
from tests.serving.gateway.fake_engine import FakeEngine


class FakeWires:
    """Engines that say nothing, whose accounts a test writes."""

    def __init__(self) -> None:
        self.accounts: dict[str, str | None] = {}
        self.heard: dict[str, int] = {}
        self.broken: list[str] = []

    def received(self, engine_id: str) -> int:
        return self.heard.get(engine_id, 0)

    async def account(self, route: EndpointRoute) -> str | None:
        return self.accounts.get(route.engine_id, "same")

    def break_off(self, engine_id: str) -> int:
        self.broken.append(engine_id)
        return 1

    def forget(self, known: Set[str]) -> None:
        return


def route(engine_id: str, revision: int = 1) -> EndpointRoute:
    return EndpointRoute(
        engine_id=engine_id, url="http://127.0.0.1:1", token="t", revision=revision, slots=4
    )


def world(*engine_ids: str) -> tuple[Lanes, FakeWires, Watch]:
    lanes = Lanes(LaneLimits(), alarm=lambda: None)
    routes = [route(name) for name in engine_ids]
    lanes.apply(RoutesDelta(version=1, full=True, models=(model("demo", *routes),)))
    wires = FakeWires()
    return lanes, wires, Watch(lanes, wires)


async def test_hanging_engine_is_broken_off_ejected_and_named_until_its_route_is_gone() -> None:
    lanes, wires, watch = world("a", "b")
    lane = lanes.get("demo")
    endpoints = {one.route.engine_id: one for one in lane.balancer}
    for endpoint in endpoints.values():
        endpoint.take(Ticket("t", 0.0, 99.0, prompt_tokens=5))
    began_s = time.monotonic()
    for second in range(10):
        wires.heard["b"] = second
        await watch.look(began_s + second)
    assert watch.suspects == ("a",)
    assert set(wires.broken) == {"a"}
    assert not endpoints["a"].breaker.lets_in(time.monotonic())
    assert endpoints["b"].breaker.lets_in(time.monotonic())
    lanes.apply(RoutesDelta(version=2, full=True, models=(model("demo", route("b")),)))
    await watch.look(began_s + 11)
    assert watch.suspects == ()


async def test_slow_engine_rests_and_is_probed_back() -> None:
    lanes, _, watch = world("a", "b", "c")
    lane = lanes.get("demo")
    for endpoint in lane.balancer:
        for _ in range(ENOUGH):
            endpoint.pace.note(3.0 if endpoint.route.engine_id == "c" else 0.1, 0.01)
    now_s = time.monotonic()
    await watch.look(now_s)
    (slow,) = [one for one in lane.balancer if not one.breaker.lets_in(now_s)]
    assert slow.route.engine_id == "c"
    assert slow.pace.answers == 0
    assert slow.breaker.lets_in(now_s + 60.0)


async def test_requests_of_an_engine_can_be_broken_off(engine: FakeEngine) -> None:
    engine.default = fake_engine.waits
    async with EngineClient() as client:

        async def ask() -> None:
            async with client.post(engine.route, "/v1/chat/completions", b"{}", "id"):
                raise AssertionError("it answered")

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        await until(lambda: engine.running == 3)
        assert client.break_off(engine.engine_id) == 3
        for one in asking:
            with pytest.raises(EngineBrokeError, match="hangs"):
                await one
        assert client.break_off(engine.engine_id) == 0


async def test_engine_is_heard_and_its_account_is_that_of_vllms_metrics_alone() -> None:
    steps = 1
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        text = f"process_cpu_seconds_total {len(asked)}\nvllm:steps {steps}\n".encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    described = route("a").model_copy(update={"url": url})
    async with EngineClient() as client:
        first, second = await client.account(described), await client.account(described)
        steps = 2
        third = await client.account(described)
        assert first is not None
        assert first == second != third
        assert b"GET /metrics HTTP/1.1" in asked[0]
        assert b"authorization: Bearer t\r\n" in asked[0]
        server.close()
        await server.wait_closed()
        assert await client.account(described) is None
        assert client.received("a") == 0  # questions of ours are no sign of the engine's work


async def test_slower_revision_is_left_to_its_canarys_gate() -> None:
    lanes, _, watch = world()
    routes = [route("old"), route("older"), route("new", revision=2)]
    lanes.apply(RoutesDelta(version=2, full=True, models=(model("demo", *routes),)))
    lane = lanes.get("demo")
    for _ in range(ENOUGH):
        for endpoint in lane.balancer:
            endpoint.pace.note(3.0 if endpoint.route.engine_id == "new" else 0.1, 0.01)
    now_s = time.monotonic()
    await watch.look(now_s)
    assert all(one.breaker.lets_in(now_s) for one in lane.balancer)
