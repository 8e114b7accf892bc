"""Lanes: slots granted in order, freed at once, and what a change of the routes does."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from models.errors import (
    DeadlineError,
    ModelFailedError,
    ModelNotFoundError,
    QueueFullError,
    UnavailableError,
)
from serving.gateway.calls import Call
from serving.gateway.demand import make_report
from serving.gateway.endpoint import Endpoint
from serving.gateway.lane import Lane
from serving.gateway.lanes import Lanes
from serving.gateway.places import LaneLimits, Place
from serving.gateway.tickets import Tier
from serving.gateway.visits import Tokens, Visit
from serving.protocol import EndpointRoute, ModelRoute, ModelState, RoutesDelta
from tests.serving.gateway.fake_controller import model

FAR_S = 60.0


class Alarm:
    def __init__(self) -> None:
        self.rung = 0

    def __call__(self) -> None:
        self.rung += 1


def route(engine_id: str = "a", slots: int = 1) -> EndpointRoute:
    return EndpointRoute(
        engine_id=engine_id, url="http://127.0.0.1:1", token="t", revision=1, slots=slots
    )


def lane(described: ModelRoute, alarm: Alarm | None = None, max_queued: int = 10) -> Lane:
    return Lane(described, LaneLimits(max_queued), alarm or Alarm())


def place(name: str = "p", deadline_in_s: float = FAR_S) -> Place:
    now_s = time.monotonic()
    return Place(name, arrived_s=now_s, deadline_s=now_s + deadline_in_s)


async def enter(
    one: Lane, ticket: Place, *, again: bool = False
) -> tuple[AsyncExitStack, Endpoint]:
    stack = AsyncExitStack()
    return stack, await stack.enter_async_context(one.slot(ticket, again=again))


async def waiting(one: Lane, count: int) -> None:
    while len(one.line) < count:  # noqa: ASYNC110, the line sets no event
        await asyncio.sleep(0)


async def test_freed_slot_goes_to_the_first_in_line() -> None:
    one = lane(model("demo", route()))
    held, _ = await enter(one, place())
    order: list[str] = []

    async def wait(name: str) -> None:
        async with one.slot(place(name)):
            order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in "abc"]
    await waiting(one, 3)
    await held.aclose()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c"]
    assert one.balancer.in_flight() == {}


async def test_request_that_comes_again_goes_before_those_who_wait() -> None:
    one = lane(model("demo", route()))
    held, _ = await enter(one, place())
    first = asyncio.create_task(enter(one, place("first")))
    await waiting(one, 1)
    again = asyncio.create_task(enter(one, place("again"), again=True))
    await waiting(one, 2)
    await held.aclose()
    stack, _ = await again
    assert not first.done()
    await stack.aclose()
    await (await first)[0].aclose()


async def test_sleeping_model_rings_once_for_all_who_wait() -> None:
    alarm = Alarm()
    one = lane(model("demo"), alarm)
    tasks = [asyncio.create_task(enter(one, place())) for _ in range(3)]
    await waiting(one, 3)
    assert alarm.rung == 1
    one.update(model("demo", route(slots=3)))
    for stack, _ in await asyncio.gather(*tasks):
        await stack.aclose()


async def test_sleeping_model_rings_again_when_more_wait_than_were_told_of() -> None:
    alarm = Alarm()
    one = lane(model("demo"), alarm)
    tasks = [asyncio.create_task(enter(one, place()))]
    await waiting(one, 1)
    make_report("gw", [one], time.monotonic() - 1.0)
    tasks.append(asyncio.create_task(enter(one, place())))
    await waiting(one, 2)
    assert alarm.rung == 2
    one.update(model("demo", route(slots=2)))
    for stack, _ in await asyncio.gather(*tasks):
        await stack.aclose()


async def test_busy_model_rings_nobody() -> None:
    alarm = Alarm()
    one = lane(model("demo", route()), alarm)
    held, _ = await enter(one, place())
    task = asyncio.create_task(enter(one, place()))
    await waiting(one, 1)
    assert alarm.rung == 0
    await held.aclose()
    await (await task)[0].aclose()


async def test_cancelled_request_frees_its_place_at_once() -> None:
    one = lane(model("demo"))
    task = asyncio.create_task(enter(one, place()))
    await waiting(one, 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(one.line) == 0


async def test_request_cancelled_in_the_moment_of_its_grant_gives_the_slot_back() -> None:
    one = lane(model("demo"))
    task = asyncio.create_task(enter(one, place()))
    await waiting(one, 1)
    one.update(model("demo", route()))  # grants; the task has not run yet
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert one.balancer.in_flight() == {}


async def test_deadline_ends_the_wait() -> None:
    one = lane(model("demo"))
    with pytest.raises(DeadlineError) as caught:
        await enter(one, place(deadline_in_s=0.01))
    assert caught.value.retry_after_s
    assert len(one.line) == 0


async def test_full_line_refuses_at_once() -> None:
    one = lane(model("demo"), max_queued=1)
    task = asyncio.create_task(enter(one, place()))
    await waiting(one, 1)
    with pytest.raises(QueueFullError):
        await enter(one, place())
    task.cancel()


async def test_failed_model_refuses_at_once_with_its_reason() -> None:
    one = lane(model("demo", state=ModelState.FAILED, reason="no memory"))
    with pytest.raises(ModelFailedError, match="no memory"):
        await enter(one, place())


async def test_model_that_fails_sends_those_away_who_wait() -> None:
    one = lane(model("demo"))
    tasks = [asyncio.create_task(enter(one, place())) for _ in range(2)]
    await waiting(one, 2)
    one.update(model("demo", state=ModelState.FAILED, reason="no memory"))
    for task in tasks:
        with pytest.raises(ModelFailedError):
            await task


async def test_failed_model_with_an_engine_left_is_served() -> None:
    one = lane(model("demo", route(), state=ModelState.FAILED))
    held, _ = await enter(one, place())
    await held.aclose()


async def test_ejected_endpoint_gets_nothing_until_it_is_pumped_again() -> None:
    alarm = Alarm()
    one = lane(model("demo", route()), alarm)
    held, endpoint = await enter(one, place())
    one.eject(endpoint, for_s=0.01)
    await held.aclose()
    again, _ = await enter(one, place(), again=True)
    assert alarm.rung == 1
    assert time.monotonic() >= endpoint.breaker.until_s
    await again.aclose()


def lanes(*models: ModelRoute) -> Lanes:
    made = Lanes(LaneLimits(10), alarm=Alarm())
    made.apply(RoutesDelta(version=1, full=True, models=models))
    return made


async def test_deleted_model_is_not_found_and_forgotten_once_its_work_is_done() -> None:
    table = lanes(model("demo", route()), model("other"))
    held, _ = await enter(table.get("demo"), place())
    table.apply(RoutesDelta(version=2, full=False, removed=("demo",)))
    with pytest.raises(ModelNotFoundError):
        table.get("demo")
    assert [one.name for one in table.routes()] == ["other"]
    table.forget_idle_retired()
    assert len(list(table)) == 2
    await held.aclose()
    table.forget_idle_retired()
    assert len(list(table)) == 1


async def test_deleted_model_sends_those_away_who_wait() -> None:
    table = lanes(model("demo"))
    one = table.get("demo")
    task = asyncio.create_task(enter(one, place()))
    await waiting(one, 1)
    table.apply(RoutesDelta(version=2, full=True))
    with pytest.raises(ModelNotFoundError):
        await task


async def test_delta_changes_only_what_it_names() -> None:
    table = lanes(model("demo"), model("other"))
    table.apply(RoutesDelta(version=2, full=False, models=(model("demo", route()),)))
    assert [one.name for one in table.routes()] == ["demo", "other"]
    assert table.get("demo").route.endpoints
    assert table.snapshot() == RoutesDelta(version=2, full=True, models=tuple(table.routes()))


async def test_leases_reach_those_who_wait() -> None:
    table = lanes(model("demo", route(slots=1)))
    one = table.get("demo")
    held, _ = await enter(one, place())
    task = asyncio.create_task(enter(one, place()))
    await waiting(one, 1)
    table.grant({"a": 2})
    await (await task)[0].aclose()
    await held.aclose()


async def test_nothing_is_not_found_before_the_first_table() -> None:
    with pytest.raises(UnavailableError):
        Lanes(LaneLimits(1), alarm=Alarm()).get("demo")


def asks(one: Lane, org_id: str = "org", **fields: object) -> tuple[Visit, Place]:
    visit = Visit("req", "/v1/chat/completions", time.monotonic(), org_id=org_id)
    visit.start_id = visit.usage_id
    values: dict[str, Any] = {"model": "demo", "stream": True, "body": b"{}", "prompt_bytes": 400}
    return visit, one.place(visit, Call(**(values | fields)), FAR_S)


async def answered(
    one: Lane, visit: Visit, place: Place, tokens: Tokens | None, first_byte: bool = True
) -> None:
    held, _ = await enter(one, place)
    if first_byte:
        visit.first_byte_s = time.monotonic()
        one.note_first_token(visit.start_id, "a", 0.0, 0.1)
    visit.status, visit.complete, visit.tokens = 200, True, tokens
    await held.aclose()


async def test_place_knows_tenant_class_and_tokens_of_its_request() -> None:
    one = lane(model("demo", route()))
    _, place = asks(one, max_tokens=20, n=2, service_tier="flex", prefix=b"x" * 600)
    assert (place.tenant, place.tier) == ("org", Tier.FLEX)
    assert (place.prompt_tokens, place.output_tokens) == (100, 40)
    assert len(place.keys) == 2
    assert (one.tally.arrivals, one.tally.arrived_tokens) == (1, 140)


async def test_answer_teaches_the_estimates_and_is_counted_with_what_it_really_took() -> None:
    promised = model("demo", route()).model_copy(update={"ttft_s": 0.0})
    one = lane(promised)
    visit, place = asks(one)
    await answered(one, visit, place, Tokens(prompt=4000, completion=10))
    assert (one.tally.finished, one.tally.finished_tokens) == (1, 4010)
    assert (one.tally.finished_output_tokens, one.tally.missed) == (10, 1)
    assert one.estimates.prompt(400) > 500
    (endpoint,) = one.balancer
    assert (endpoint.in_flight, endpoint.outstanding, endpoint.kv_tokens) == (0, 0, 0)
    assert endpoint.pace.answers == 1


async def test_first_byte_makes_room_for_the_next_prompt() -> None:
    one = Lane(model("demo", route(slots=9)), LaneLimits(prefill_tokens=150), Alarm())
    visit, first = asks(one)
    held, _ = await enter(one, first)
    _, second = asks(one)
    waits = asyncio.create_task(enter(one, second))
    await waiting(one, 1)
    one.note_first_token(visit.start_id, "a", 0.0, 0.1)
    await (await waits)[0].aclose()
    await held.aclose()


async def test_attempt_that_failed_costs_the_tenant_nothing_in_the_order_of_the_line() -> None:
    one = lane(model("demo", route()))
    _, place = asks(one)
    held, _ = await enter(one, place)
    await held.aclose()
    assert one.tally.finished == 0
    assert one.line._queues[Tier.DEFAULT].counters.served("org") == 0


async def test_flood_of_one_tenant_does_not_keep_another_out_of_a_full_line() -> None:
    one = lane(model("demo"), max_queued=3)
    flood = [asyncio.create_task(enter(one, asks(one, "flood")[1])) for _ in range(3)]
    await waiting(one, 3)
    calm = asyncio.create_task(enter(one, asks(one, "calm")[1]))
    with pytest.raises(QueueFullError):
        await flood[2]
    one.update(model("demo", route(slots=3)))
    for stack, _ in await asyncio.gather(calm, *flood[:2]):
        await stack.aclose()


async def test_calm_tenant_takes_a_kept_slot_at_once_while_a_flood_waits() -> None:
    one = lane(model("demo", route(slots=8)), max_queued=20)
    held = [await enter(one, asks(one, "calm")[1])]
    flood = [asyncio.create_task(enter(one, asks(one, "flood")[1])) for _ in range(10)]
    await waiting(one, 4)  # of eight slots the calm tenant has one, and one is kept
    stack, _ = await enter(one, asks(one, "calm")[1])
    assert one.balancer.in_flight() == {"a": 8}
    await stack.aclose()
    await held[0][0].aclose()
    for task in flood:
        await (await task)[0].aclose()
