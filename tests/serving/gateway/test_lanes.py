"""Lanes: slots granted in order, freed at once, and what a change of the routes does."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from models.errors import (
    DeadlineError,
    ModelFailedError,
    ModelNotFoundError,
    QueueFullError,
    UnavailableError,
)
from serving.gateway.endpoint import Endpoint
from serving.gateway.lane import Lane
from serving.gateway.lanes import Lanes
from serving.gateway.places import LaneLimits, Place
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
