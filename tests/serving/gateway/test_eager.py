"""Tasks whose first step is made at once: beside plain ones, which they must not differ from."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine

import pytest

from serving.gateway.eager import start

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

Begin = Callable[[Coroutine[object, object, None]], "asyncio.Task[None]"]


async def in_callback(begin: Callable[[], "asyncio.Task[None]"]) -> "asyncio.Task[None]":
    """Begins a task from a callback of the loop, where no task runs."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[asyncio.Task[None]] = loop.create_future()
    loop.call_soon(lambda: made.set_result(begin()))
    return await made


async def started(coroutine: Coroutine[object, object, None]) -> "asyncio.Task[None]":
    loop = asyncio.get_running_loop()
    return await in_callback(lambda: start(loop, coroutine))


async def test_first_step_is_made_before_start_returns() -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("first")
        await asyncio.sleep(0)
        steps.append("second")

    loop = asyncio.get_running_loop()
    task = await in_callback(lambda: (start(loop, work()), steps.append("returned"))[0])
    await task
    assert steps == ["first", "returned", "second"]


async def test_task_is_the_current_one_in_all_its_steps() -> None:
    seen: list[asyncio.Task[None] | None] = []

    async def work() -> None:
        seen.append(asyncio.current_task())
        async with asyncio.timeout(10):  # needs a task
            await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    task = await started(work())
    assert asyncio.current_task() is not task
    await task
    assert seen == [task, task]


async def test_values_wait_for_and_errors_reach_whoever_awaits() -> None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[int] = loop.create_future()
    got: list[int] = []

    async def work() -> None:
        got.append(await answer)
        raise ValueError("bad")

    task = await started(work())
    answer.set_result(7)
    with pytest.raises(ValueError, match="bad"):
        await task
    assert got == [7]


async def fails() -> None:
    raise ValueError("at once")


async def test_what_ends_in_its_first_step_ends_the_task() -> None:
    async def nothing() -> None:
        return

    await (await started(nothing()))
    with pytest.raises(ValueError, match="at once"):
        await (await started(fails()))


async def test_end_in_the_first_step_stands_though_the_task_is_cancelled_after_it() -> None:
    loop = asyncio.get_running_loop()

    def begin() -> "asyncio.Task[None]":
        task = start(loop, fails())
        task.cancel()
        return task

    with pytest.raises(ValueError, match="at once"):
        await (await in_callback(begin))


async def test_cancelling_before_the_second_step_ends_the_wait() -> None:
    loop = asyncio.get_running_loop()
    ended: list[str] = []

    async def work(wait: Callable[[], Awaitable[object]]) -> None:
        try:
            await wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        finally:
            ended.append("cleaned")

    never: asyncio.Future[None] = loop.create_future()

    async def wait() -> None:
        await never

    def begin() -> "asyncio.Task[None]":
        task = start(loop, work(wait))
        task.cancel()  # in the same turn: the loop has not heard yet what it waits for
        return task

    task = await in_callback(begin)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled", "cleaned"]


async def test_what_it_sets_in_its_context_stays_its_own() -> None:
    seen: list[str] = []

    async def work() -> None:
        NAME.set("mine")
        await asyncio.sleep(0)
        seen.append(NAME.get())

    await (await started(work()))
    assert seen == ["mine"]
    assert NAME.get() == "nobody"
