"""`model:adapter` at the gateway: who may call it, which engine gets it, and who waits for it."""

import asyncio

import pytest

from serving.gateway.affinity import keys_of
from serving.gateway.balancer import Balancer
from serving.gateway.limits_rules import Rules
from serving.gateway.tickets import Ticket
from serving.identities import KeyRecord, LimitRecord, TokenPrice
from serving.prices import PriceBook
from serving.protocol import AdapterRoute, EndpointRoute, ModelRoute
from tests.serving.gateway.conftest import Gateway, chat, until
from tests.serving.gateway.fake_controller import KEYS, FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

PATH = "/v1/chat/completions"


def with_adapter(
    *endpoints: EndpointRoute, loaded: tuple[EndpointRoute, ...] = (), failed: bool = False
) -> ModelRoute:
    """`demo` with the adapter `pirate`, which the endpoints in `loaded` have."""
    has = tuple(one.model_copy(update={"adapters": ("pirate",)}) for one in loaded)
    adapter = AdapterRoute(name="pirate", failed=failed)
    return model("demo", *endpoints, *has).model_copy(update={"adapters": (adapter,)})


async def test_adapters_requests_go_to_engines_that_have_it_under_its_name(
    gateway: Gateway, controller: FakeController, engine: FakeEngine, second_engine: FakeEngine
) -> None:
    controller.set_routes(with_adapter(engine.route, loaded=(second_engine.route,)))
    await gateway.answers("/v1/models/demo:pirate")
    for _ in range(5):
        answer = await gateway.http.post(PATH, json=chat(model="demo:pirate"))
        assert answer.status_code == 200
    assert not engine.seen
    assert {seen.body["model"] for seen in second_engine.seen} == {"demo:pirate"}
    listed = (await gateway.http.get("/v1/models")).json()["data"]
    assert [(one["id"], one["parent"]) for one in listed] == [
        ("demo", None), ("demo:pirate", "demo"),
    ]  # fmt: skip
    await until(lambda: {row.model for row in controller.usage.values()} == {"demo:pirate"})


async def test_request_for_an_adapter_on_its_way_waits_beside_the_line(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    controller.set_routes(with_adapter(engine.route))
    await gateway.answers("/v1/models/demo:pirate")
    waits = asyncio.create_task(gateway.http.post(PATH, json=chat(model="demo:pirate")))
    for _ in range(engine.slots + 1):
        assert (await gateway.http.post(PATH, json=chat())).status_code == 200, "nobody is held up"
    assert not waits.done()
    controller.set_routes(with_adapter(loaded=(engine.route,)))
    assert (await waits).status_code == 200


async def test_requests_that_woke_an_engine_wait_on_where_it_has_not_their_adapter(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    controller.set_routes(with_adapter())
    await gateway.answers("/v1/models/demo:pirate")
    waits = asyncio.create_task(gateway.http.post(PATH, json=chat(model="demo:pirate")))
    await until(lambda: controller.queued("demo") == 1)
    controller.set_routes(with_adapter(engine.route))
    assert (await gateway.http.post(PATH, json=chat())).status_code == 200
    assert not waits.done()
    controller.set_routes(with_adapter(loaded=(engine.route,)))
    assert (await waits).status_code == 200


@pytest.mark.parametrize(("known", "status"), [(True, 503), (False, 404)])
async def test_adapter_that_failed_or_is_not_there_is_refused(
    gateway: Gateway, controller: FakeController, engine: FakeEngine, known: bool, status: int
) -> None:
    controller.set_routes(with_adapter(engine.route, failed=True))
    await gateway.answers("/v1/models/demo:pirate")
    name = "demo:pirate" if known else "demo:parrot"
    refused = await gateway.http.post(PATH, json=chat(model=name))
    assert refused.status_code == status
    assert refused.json()["error"]["code"] == ("model_failed" if known else "model_not_found")
    assert (await gateway.http.post(PATH, json=chat())).status_code == 200
    for odd in ("demo:", ":pirate", "demo:pirate:x"):
        assert (await gateway.http.post(PATH, json=chat(model=odd))).status_code == 404


def key(*models: str) -> KeyRecord:
    return KEYS[0].model_copy(update={"models": models})


def test_keys_name_a_model_an_adapter_or_all_adapters_of_a_model() -> None:
    assert key("demo").may_call("demo") and not key("demo").may_call("demo:pirate")
    assert key("demo:pirate").may_call("demo:pirate") and not key("demo:pirate").may_call("demo")
    every = key("demo:*")
    assert every.may_call("demo:pirate") and every.may_call("demo:parrot")
    assert not every.may_call("demo") and not every.may_call("other:pirate")


def test_adapter_costs_what_its_model_does_unless_it_has_a_price() -> None:
    def price(name: str, picodollars: int) -> TokenPrice:
        return TokenPrice(
            price_id=name, model=name, input=picodollars, cached=0, output=picodollars
        )

    book = PriceBook([price("*", 1), price("demo", 2), price("demo:pirate", 3)])
    found = [book.token_price(f"{m}", "default", 1.0) for m in
             ("demo:pirate", "demo:parrot", "demo", "other:pirate")]  # fmt: skip
    assert [one.input for one in found if one is not None] == [3, 2, 2, 1]


def test_limits_of_a_model_hold_for_its_adapters() -> None:
    limits = [
        LimitRecord(limit_id=name, scope_id="org", model=name, requests_per_min=1, max_tokens=cap)
        for name, cap in (("*", 30), ("demo", 20), ("demo:pirate", 10))
    ]
    rules = Rules(limits, ())
    assert len(rules.touching(("org",), "demo:pirate")) == 3
    assert len(rules.touching(("org",), "demo")) == 2
    caps = [rules.max_tokens(("org",), name) for name in ("demo:pirate", "demo:x", "demo", "x")]
    assert caps == [10, 20, 20, 30]


def test_an_adapters_requests_have_their_own_affinity() -> None:
    prompt = b"x" * 600
    plain, one = keys_of("acme", "", prompt), keys_of("acme", "", prompt, "pirate")
    assert not set(plain) & set(one), "an engine caches prompts for each adapter apart"
    assert one[0] == keys_of("umbrella", "", b"", "pirate")[0], "whoever asks, it is at hand there"


def test_canary_that_alone_has_an_adapter_gets_all_requests_for_it() -> None:
    balancer = Balancer()
    old, new = (
        EndpointRoute(engine_id=name, url="http://127.0.0.1:1", token="t", revision=number,
                      slots=4, adapters=adapters)
        for name, number, adapters in (("old", 1, ()), ("new", 2, ("pirate",)))
    )  # fmt: skip
    balancer.update((old, new), 0.0, news=(2,))
    asked = Ticket("r", 0.0, 60.0, adapter="pirate")
    chosen = balancer.choose(asked, 100.0)
    assert chosen is not None and chosen.route.engine_id == "new"
