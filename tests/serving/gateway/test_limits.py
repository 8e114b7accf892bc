"""Limits at a gateway that runs: what passes, what is refused, and what the tenant is told."""

import asyncio
from collections.abc import Callable

import pytest

from serving.gateway.auth import Keyring
from serving.gateway.calls import Call
from serving.gateway.limits_headers import duration
from serving.gateway.limits_rules import Rules, demands, estimate
from serving.identities import LimitRecord, TokenPrice
from serving.limits import limit_id
from serving.settings import GatewaySettings
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat, until
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

PATH = "/v1/chat/completions"
MILLION = 10**6


def limit(scope_id: str = "key-1", on: str = "*", **fields: int) -> LimitRecord:
    return LimitRecord(limit_id=limit_id(scope_id, on), scope_id=scope_id, model=on, **fields)


async def apply(gateway: Gateway, controller: FakeController, *limits: LimitRecord) -> None:
    """Sets limits and waits until the gateway knows them."""
    controller.set_limits(*limits)
    keyring: Keyring = gateway.app.state.keyring
    await until(lambda: keyring.version == controller.identities.version)


async def test_request_beyond_its_limit_is_a_429_that_says_when(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    await apply(gateway, controller, limit(requests_per_min=3))
    answers = [await gateway.http.post(PATH, json=chat()) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert len(engine.seen) == 3
    refused = answers[3]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 58 <= int(refused.headers["retry-after"]) <= 61
    assert [a.headers["x-ratelimit-remaining-requests"] for a in answers] == ["2", "1", "0", "0"]
    assert refused.headers["x-ratelimit-limit-requests"] == "3"
    assert refused.headers["x-ratelimit-reset-requests"].startswith("1m")


async def test_other_keys_and_other_models_are_not_touched(
    gateway: Gateway, controller: FakeController
) -> None:
    await apply(
        gateway, controller, limit("key-9", requests_per_min=0), limit(on="asleep", concurrent=0)
    )
    answer = await gateway.http.post(PATH, json=chat())
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
    refused = await gateway.http.post(PATH, json=chat(model="asleep"))
    assert refused.status_code == 429


async def test_limit_of_the_project_and_of_the_organisation_hold_too(
    gateway: Gateway, controller: FakeController
) -> None:
    for scope_id in ("proj-default", "org-default"):
        await apply(gateway, controller, limit(scope_id, requests_per_min=0))
        assert (await gateway.http.post(PATH, json=chat())).status_code == 429
    await apply(gateway, controller)
    assert (await gateway.http.post(PATH, json=chat())).status_code == 200


async def test_unused_max_tokens_are_there_again_at_once(
    gateway: Gateway, controller: FakeController
) -> None:
    """The engine's answers take 6 tokens of the 80 that are reserved for each."""
    await apply(gateway, controller, limit(output_tokens_per_min=100))
    for _ in range(2):
        for stream in (False, True):
            answer = await gateway.http.post(PATH, json=chat(max_tokens=80, stream=stream))
            assert answer.status_code == 200, answer.text
    assert answer.headers["x-ratelimit-limit-tokens"] == "100"


async def test_request_that_would_never_fit_is_told_so(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    await apply(gateway, controller, limit(output_tokens_per_min=100))
    refused = await gateway.http.post(PATH, json=chat(max_tokens=101))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "request_too_large")
    assert refused.json()["error"]["param"] == "max_tokens"
    assert not engine.seen


async def test_only_so_many_requests_run_at_once(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    await apply(gateway, controller, limit(concurrent=2))
    engine.default = fake_engine.waits
    running = [asyncio.create_task(gateway.http.post(PATH, json=chat())) for _ in range(2)]
    await until(lambda: engine.running == 2)
    refused = await gateway.http.post(PATH, json=chat())
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    engine.default = fake_engine.answers
    await until(lambda: engine.running == 0)
    async with asyncio.timeout(30):
        while (await gateway.http.post(PATH, json=chat())).status_code != 200:
            pass  # each turn waits for an answer


async def test_longest_answer_is_set_or_refused(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    await apply(gateway, controller, limit(max_tokens=50))
    assert (await gateway.http.post(PATH, json=chat())).status_code == 200
    assert engine.seen[-1].body["max_tokens"] == 50
    assert (await gateway.http.post(PATH, json=chat(max_tokens=20))).status_code == 200
    assert engine.seen[-1].body["max_tokens"] == 20
    refused = await gateway.http.post(PATH, json=chat(max_completion_tokens=51))
    assert (refused.status_code, refused.json()["error"]["param"]) == (
        400, "max_completion_tokens",
    )  # fmt: skip


async def test_budget_is_reserved_and_settled_in_money(
    gateway: Gateway, controller: FakeController
) -> None:
    """3 prompt tokens (2 of them cached) and 6 completion tokens at 1, 0 and 10 millionths of a
    dollar each: 61 millionths a request, of a budget of 150; 100 more may be reserved meanwhile."""
    price = TokenPrice(price_id="price-1", input=MILLION, cached=0, output=10 * MILLION)
    controller.identities = controller.identities.model_copy(update={"prices": (price,)})
    await apply(gateway, controller, limit(budget_day=150 * MILLION))
    statuses = []
    for _ in range(3):
        answer = await gateway.http.post(PATH, json=chat(max_tokens=8))
        statuses.append(answer.status_code)
    assert statuses == [200, 200, 429]
    assert answer.json()["error"]["code"] == "insufficient_quota"
    assert int(answer.headers["retry-after"]) >= 1


async def test_unreachable_controller_leaves_what_was_granted(
    gateway: Gateway, controller: FakeController
) -> None:
    await apply(gateway, controller, limit(requests_per_min=5))
    assert (await gateway.http.post(PATH, json=chat())).status_code == 200
    await asyncio.sleep(0.4)
    await controller.stop()
    statuses = [(await gateway.http.post(PATH, json=chat())).status_code for _ in range(6)]
    assert statuses == [200, 200, 200, 200, 429, 429]


@pytest.mark.parametrize(
    ("direction", "statuses"), [("allow", [200] * 3), ("deny", [200, 503, 503])]
)
async def test_without_shares_the_operators_choice_holds(
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
    direction: str,
    statuses: list[int],
) -> None:
    """The first request of a key passes in any case: by it a limit may be overrun."""
    controller.set_routes(model("demo", engine.route))
    controller.shares = None
    gateway = make_gateway(settings.model_copy(update={"on_limit_store_down": direction}))
    await gateway.start()
    await apply(gateway, controller, limit(requests_per_min=3))
    seen = [(await gateway.http.post(PATH, json=chat())).status_code for _ in range(3)]
    assert seen == statuses


async def test_two_gateways_share_a_limit(
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    controller.set_routes(model("demo", engine.route.model_copy(update={"slots": 64})))
    gateways = []
    for i in range(2):
        state = settings.gateway_state_dir / str(i)
        gateways.append(make_gateway(settings.model_copy(update={"gateway_state_dir": state})))
        await gateways[-1].start()
    for gateway in gateways:
        await apply(gateway, controller, limit(requests_per_min=30))
    answers = []
    for _ in range(40):
        answers += await asyncio.gather(*(g.http.post(PATH, json=chat()) for g in gateways))
    passed = sum(answer.status_code == 200 for answer in answers)
    assert 30 <= passed <= 32
    assert {answer.status_code for answer in answers} == {200, 429}


def test_reservation_counts_every_answer_asked_for() -> None:
    call = fake_call(max_tokens=10, n=3, prompt_bytes=400)
    most = estimate(call, PATH, longest=512)
    assert (most.input, most.output, most.is_said) == (100, 30, True)
    assert estimate(call, "/v1/embeddings", longest=512).output == 0


def test_answer_of_unsaid_length_may_fill_the_model_or_the_limit() -> None:
    most = estimate(fake_call(prompt_bytes=400), PATH, longest=512)
    assert (most.output, most.is_said) == (412, False)
    rules = Rules([limit(output_tokens_per_min=300, input_tokens_per_min=50)], ())
    amounts = {
        d.meter.kind.value: d.amount for d in demands(rules.touching(["key-1"], "demo"), most, None)
    }
    assert amounts == {"input": 100, "output": 300}


def test_meters_outlive_a_change_of_their_limit() -> None:
    rules = Rules([limit(requests_per_min=3)], ())
    (meter,) = rules.meters()
    rules.update([limit(requests_per_min=9), limit("key-2", concurrent=1)], ())
    assert rules.touching(["key-1", "key-2"], "demo")[0] is meter
    assert meter.limit == 9
    rules.update([], ())
    assert not rules


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0ms"), (0.12, "120ms"), (1, "1s"), (59.6, "1m0s"), (360, "6m0s")]
)
def test_durations_read_as_openais(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def fake_call(**fields: int) -> Call:
    return Call(model="demo", stream=False, body=b"{}", **fields)


async def test_busy_gateway_lets_go_of_its_share_for_another(
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    controller.set_routes(model("demo", engine.route))
    one, two = (
        make_gateway(
            settings.model_copy(update={"gateway_state_dir": settings.gateway_state_dir / str(i)})
        )
        for i in range(2)
    )
    for gateway in (one, two):
        await gateway.start()
        await apply(gateway, controller, limit(requests_per_min=20))
    for _ in range(4):
        assert (await one.http.post(PATH, json=chat())).status_code == 200
    for _ in range(4):
        assert (await two.http.post(PATH, json=chat())).status_code == 200
