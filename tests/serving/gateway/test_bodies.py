"""Bodies: the cap, and callers who leave."""

import asyncio
from collections.abc import Iterable

import pytest
from starlette.types import Message, Receive

from models.errors import BodyTooLargeError
from serving.gateway.bodies import DRAIN_BYTES, TenantLeftError, WhileTenantStays, drain, read_body
from serving.gateway.body_budget import SMALL_BYTES, BodiesFullError, BodyBudget, Held


class Caller:
    """An ASGI receive that plays messages, then blocks."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._messages = iter(messages)
        self.received = 0

    async def __call__(self) -> Message:
        for message in self._messages:
            self.received += 1
            return message
        await asyncio.Event().wait()
        raise AssertionError


def part(body: bytes, more_body: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more_body}


LEFT: Message = {"type": "http.disconnect"}


def held() -> Held:
    return Held(BodyBudget(2**30), "org")


@pytest.mark.parametrize(
    "messages",
    [[part(b"abcd", more_body=False)], [part(b"ab"), part(b""), part(b"cd", more_body=False)]],
)
async def test_body_up_to_the_cap_is_read_whole(messages: list[Message]) -> None:
    assert await read_body(Caller(messages), [], cap=4, held=held()) == b"abcd"


async def test_announced_body_past_the_cap_is_not_even_begun() -> None:
    caller = Caller([part(b"abcde", more_body=False)])
    with pytest.raises(BodyTooLargeError):
        await read_body(caller, [(b"content-length", b"5")], cap=4, held=held())
    assert caller.received == 0


async def test_chunked_body_is_given_up_as_soon_as_it_passes_the_cap() -> None:
    caller = Caller(part(b"abc") for _ in range(1000))
    with pytest.raises(BodyTooLargeError):
        await read_body(caller, [], cap=4, held=held())
    assert caller.received == 2


async def test_whole_body_in_one_piece_past_the_cap_is_refused() -> None:
    with pytest.raises(BodyTooLargeError):
        await read_body(Caller([part(b"abcde", more_body=False)]), [], cap=4, held=held())


async def test_caller_who_leaves_within_the_body_is_noticed() -> None:
    with pytest.raises(TenantLeftError):
        await read_body(Caller([part(b"a"), LEFT]), [], cap=4, held=held())


async def test_announced_body_without_room_is_not_even_begun() -> None:
    caller = Caller([part(b"a", more_body=False)])
    size = SMALL_BYTES + 1
    nothing_left = Held(BodyBudget(size), "org")
    with pytest.raises(BodiesFullError):
        await read_body(caller, [(b"content-length", b"%d" % size)], 2**30, nothing_left)
    assert caller.received == 0


async def test_chunked_body_takes_room_as_it_grows_and_is_given_up_where_there_is_none() -> None:
    caller = Caller(part(b"x" * SMALL_BYTES) for _ in range(1000))
    budget = BodyBudget(8 * SMALL_BYTES)
    mine = Held(budget, "org")
    with pytest.raises(BodiesFullError):
        await read_body(caller, [], 2**30, mine)
    assert caller.received == 5  # an owner has half of the budget
    assert budget.held == 4 * SMALL_BYTES
    mine.release()
    assert budget.held == 0


async def test_drain_ends_with_the_body() -> None:
    caller = Caller([part(b"a"), part(b"b", more_body=False), part(b"never")])
    await drain(caller)
    assert caller.received == 2


async def test_drain_gives_up_on_an_endless_body() -> None:
    caller = Caller(part(b"x" * 2**20) for _ in range(10_000))
    await drain(caller)
    assert caller.received == DRAIN_BYTES / 2**20


async def stay(receive: Receive) -> None:
    async with WhileTenantStays(receive):
        await asyncio.Event().wait()


async def test_disconnect_ends_the_block() -> None:
    with pytest.raises(TenantLeftError):
        await stay(Caller([LEFT]))


async def test_cancellation_from_outside_stays_a_cancellation() -> None:
    task = asyncio.create_task(stay(Caller([])))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_block_that_ends_by_itself_leaves_no_watcher() -> None:
    before = asyncio.all_tasks()
    async with WhileTenantStays(Caller([])):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
