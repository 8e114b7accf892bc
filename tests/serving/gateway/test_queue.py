"""The waiting line: order, bounds and ages."""

import pytest

from models.errors import QueueFullError
from serving.gateway.queue import Ticket, WaitingLine


def ticket(name: str, arrived_s: float = 0.0) -> Ticket:
    return Ticket(name, arrived_s=arrived_s, deadline_s=arrived_s + 10)


def names(line: WaitingLine[Ticket]) -> list[str]:
    out = []
    while (head := line.first()) is not None:
        out.append(head.start_id)
        line.leave(head)
    return out


def test_line_serves_in_the_order_of_arrival() -> None:
    line: WaitingLine[Ticket] = WaitingLine(max_queued=3)
    for name in "abc":
        line.join(ticket(name))
    assert names(line) == ["a", "b", "c"]


def test_line_refuses_when_full_and_says_when_to_come_back() -> None:
    line: WaitingLine[Ticket] = WaitingLine(max_queued=1)
    line.join(ticket("a"))
    with pytest.raises(QueueFullError) as caught:
        line.join(ticket("b"))
    assert caught.value.retry_after_s is not None
    assert len(line) == 1


def test_request_that_lost_its_engine_comes_back_to_the_head_of_a_full_line() -> None:
    line: WaitingLine[Ticket] = WaitingLine(max_queued=1)
    line.join(ticket("a"))
    line.rejoin(ticket("retried"))
    assert names(line) == ["retried", "a"]


def test_leaving_frees_the_place_at_once_and_twice_is_harmless() -> None:
    line: WaitingLine[Ticket] = WaitingLine(max_queued=2)
    first, second = ticket("a"), ticket("b")
    line.join(first)
    line.join(second)
    line.leave(first)
    line.leave(first)
    line.join(ticket("c"))
    assert names(line) == ["b", "c"]


def test_oldest_wait_is_that_of_the_head() -> None:
    line: WaitingLine[Ticket] = WaitingLine(max_queued=2)
    assert line.oldest_wait_s(now_s=9.0) == 0.0
    line.join(ticket("a", arrived_s=1.0))
    line.join(ticket("b", arrived_s=5.0))
    assert line.oldest_wait_s(now_s=9.0) == 8.0


def test_clearing_names_everybody_who_waited() -> None:
    line: WaitingLine[Ticket] = WaitingLine(max_queued=2)
    waiting = [ticket("a"), ticket("b")]
    for one in waiting:
        line.join(one)
    assert line.clear() == waiting
    assert len(line) == 0
