"""Runs against a server that is a function: no network, and no time but the loop's own."""

import asyncio
import time
from collections.abc import Iterator
from itertools import repeat

import pytest

from loadtests.client import Ask
from loadtests.measure import Failure, Outcome
from loadtests.runner import Pacer, closed_loop, open_loop
from loadtests.workload import Session, Single

ASK = Ask("/v1/chat/completions", b"{}")


class Server:
    """Answers after a turn of the loop, and remembers what it saw."""

    def __init__(self, failure: Failure | None = None) -> None:
        self.now = self.peak = 0
        self.due: list[float] = []
        self.failure = failure

    async def measure(self, ask: Ask, due_s: float) -> Outcome:
        self.now += 1
        self.peak = max(self.peak, self.now)
        self.due.append(due_s)
        await asyncio.sleep(0.001)
        self.now -= 1
        return Outcome(ask.kind, due_s, time.monotonic(), failure=self.failure)


class Talk:
    """Three requests, unless one fails."""

    def __init__(self) -> None:
        self.turns = 0

    def next(self, last: Outcome | None) -> Ask | None:
        self.turns += 1
        return ASK if self.turns <= 3 and (last is None or last.ok) else None


def singles() -> Iterator[Session]:
    return repeat(Single(ASK))


async def test_closed_loop_keeps_so_many_busy_and_ends_after_its_requests() -> None:
    server = Server()
    run = await closed_loop(server.measure, singles(), concurrency=4, requests=18)
    assert (len(run.outcomes), server.peak, server.now) == (18, 4, 0)


async def test_closed_loop_ends_with_its_time_and_serves_who_has_come() -> None:
    server = Server()
    run = await closed_loop(server.measure, singles(), concurrency=2, duration_s=0.05)
    assert len(run.outcomes) == len(server.due) >= 2
    assert server.now == 0
    assert run.duration_s >= 0.05


async def test_closed_loop_ends_when_nobody_comes_any_more() -> None:
    run = await closed_loop(Server().measure, iter([Single(ASK)] * 3), concurrency=9, requests=99)
    assert len(run.outcomes) == 3


async def test_visitor_with_several_requests_makes_them_one_after_the_other() -> None:
    server = Server()
    run = await closed_loop(server.measure, iter([Talk()]), concurrency=1, requests=1)
    assert (len(run.outcomes), server.peak) == (3, 1)
    failing = Server(Failure.RESET)
    run = await closed_loop(failing.measure, iter([Talk()]), concurrency=1, requests=1)
    assert len(run.outcomes) == 1


async def test_open_loop_sends_each_when_due_whatever_the_server_does() -> None:
    server = Server()
    times_s = [0.0, 0.01, 0.01, 0.03]
    told: list[Outcome] = []
    run = await open_loop(server.measure, singles(), times_s, on_outcome=told.append)
    assert [due_s - run.started_s for due_s in server.due] == pytest.approx(times_s)
    assert all(outcome.lag_s >= 0 for outcome in run.outcomes)
    assert told == list(run.outcomes)


@pytest.mark.parametrize(
    ("concurrency", "requests", "duration_s"),
    [(0, 1, None), (1, None, None), (1, 0, None), (1, None, 0.0)],
)
async def test_run_of_nothing_is_refused(
    concurrency: int, requests: int | None, duration_s: float | None
) -> None:
    with pytest.raises(ValueError):
        await closed_loop(
            Server().measure, singles(), concurrency=concurrency, requests=requests,
            duration_s=duration_s,
        )  # fmt: skip
    with pytest.raises(ValueError, match="nobody arrives"):
        await open_loop(Server().measure, singles(), [])


async def test_pacer_wakes_no_earlier_than_asked() -> None:
    pacer = Pacer()
    for wait_s in (-1.0, 0.0, 0.002, 0.011):
        at_s = time.monotonic() + wait_s
        await pacer.until(at_s)
        assert at_s <= time.monotonic() < at_s + 2
    pacer.close()
