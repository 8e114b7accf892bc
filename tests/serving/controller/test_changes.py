"""A version that grows, and those who wait for it."""

import asyncio

from serving.controller.changes import Changes


async def test_change_between_the_call_and_its_tasks_beginning_is_not_missed() -> None:
    changes = Changes(1)
    waiting = asyncio.create_task(changes.woken(30))
    changes.bump()  # the task has not begun
    assert await waiting
    assert changes.version == 2


async def test_whoever_begins_to_wait_after_a_change_waits_for_the_next() -> None:
    changes = Changes(1)
    changes.bump()
    assert not await changes.woken(0.01)


async def test_all_who_wait_are_woken_by_one_change() -> None:
    changes = Changes(1)
    waiting = [asyncio.create_task(changes.woken(30)) for _ in range(3)]
    changes.wake()
    assert await asyncio.gather(*waiting) == [True, True, True]
    assert changes.version == 1
