"""Pools as a story: hosts come for engines at once, and go when keeping them costs more."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.hosts import (
    PoolDecision,
    PoolMemory,
    PoolReason,
    PoolSeen,
    PoolSpec,
    Tenure,
    first_memory,
    may_shrink,
    size,
)

SPEC = PoolSpec(min=0, max=8, spare=1, node_start_s=60.0, idle_s=600.0)


def seen(at_s: float, wanted: int, hosts: int = 0, busy: int = 0) -> PoolSeen:
    return PoolSeen(at_s, hosts, busy, wanted)


def test_pool_grows_at_once_and_lets_idle_hosts_go_late() -> None:
    memory = first_memory(0.0, 0)
    story = [
        (seen(0.0, 0), 0, PoolReason.BOUNDS),
        (seen(1.0, 2), 3, PoolReason.ENGINES),  # two engines, and a spare host
        (seen(100.0, 2, hosts=3, busy=2), 3, PoolReason.ENGINES),
        (seen(200.0, 0, hosts=3), 3, PoolReason.HOLD),  # the last peak was at 100 s
        (seen(699.0, 0, hosts=3), 3, PoolReason.HOLD),
        (seen(701.0, 0, hosts=3), 0, PoolReason.BOUNDS),
        (seen(702.0, 20, hosts=0), 8, PoolReason.FULL),
    ]
    for moment, target, reason in story:
        decision, memory = size(moment, memory, SPEC)
        assert (decision.target, decision.reason) == (target, reason), moment


def test_idle_host_is_kept_until_it_costs_what_its_return_would() -> None:
    # 60 s of a node's start at 30 an hour, and of somebody's wait at 60: even after 180 s.
    assert replace(SPEC, price_per_hour=30.0).hold_s() == 180.0
    assert replace(SPEC, price_per_hour=6000.0).hold_s() == pytest.approx(60.6)
    assert replace(SPEC, price_per_hour=0.001).hold_s() == 600.0
    assert SPEC.hold_s() == 600.0


def test_host_that_does_not_come_is_no_room_and_is_still_asked_for() -> None:
    memory = first_memory(0.0, 1)
    decision, memory = size(seen(1.0, 3, hosts=1, busy=1), memory, SPEC)
    assert (decision.target, decision.growable) == (4, 7)
    decision, memory = size(seen(122.0, 3, hosts=1, busy=1), memory, SPEC)
    assert (decision.target, decision.growable, decision.reason) == (4, 0, PoolReason.SHORT)
    decision, _ = size(seen(123.0, 3, hosts=4, busy=1), memory, SPEC)
    assert (decision.growable, decision.reason) == (4, PoolReason.ENGINES)


def test_hosts_that_are_there_at_the_start_are_kept_for_a_while() -> None:
    decision, memory = size(seen(5.0, 0, hosts=4), first_memory(5.0, 4), SPEC)
    assert (decision.target, decision.reason) == (4, PoolReason.HOLD)
    assert size(seen(606.0, 0, hosts=4), memory, SPEC)[0].target == 0


def test_clock_that_was_set_back_keeps_no_peak_for_ever() -> None:
    decision, memory = size(seen(10.0, 0, hosts=4), first_memory(1e9, 4), SPEC)
    assert decision.target == 4
    assert size(seen(700.0, 0, hosts=4), memory, SPEC)[0].target == 0


numbers = st.integers(0, 20)


@given(
    st.lists(st.tuples(st.floats(0, 500), numbers, numbers, numbers), max_size=15),
    st.integers(0, 4), st.integers(0, 6), st.integers(0, 3),
)  # fmt: skip
def test_pool_stays_within_its_bounds_and_never_below_its_engines(
    steps: list[tuple[float, int, int, int]], low: int, more: int, spare: int
) -> None:
    spec = PoolSpec(low, low + more, spare, node_start_s=10.0, idle_s=60.0)
    memory, at_s = first_memory(0.0, low), 0.0
    for passed_s, wanted, hosts, busy in steps:
        at_s += passed_s
        busy = min(busy, hosts)
        decision, memory = size(PoolSeen(at_s, hosts, busy, wanted), memory, spec)
        assert spec.min <= decision.target <= spec.max
        assert decision.target >= min(busy, spec.max)
        assert decision.growable >= 0


@given(numbers, numbers, st.integers(0, 5))
def test_more_engines_never_want_fewer_hosts(wanted: int, hosts: int, more: int) -> None:
    def target(number: int) -> PoolDecision:
        return size(seen(1.0, number, hosts), PoolMemory(0), SPEC)[0]

    assert target(wanted + more).target >= target(wanted).target


@given(st.integers(1, 6))
def test_pool_does_not_flap_under_steady_demand(wanted: int) -> None:
    memory, targets = first_memory(0.0, 0), []
    for tick in range(3000):
        decision, memory = size(seen(tick * 0.25, wanted, 8, wanted), memory, SPEC)
        targets.append(decision.target)
    assert set(targets) == {wanted + 1}


def test_pool_shrinks_only_where_the_host_that_serve_would_stop_is_idle() -> None:
    old_busy, new_idle = Tenure("n1", 1.0, True), Tenure("n1", 2.0, False)
    assert may_shrink([old_busy, new_idle], {})
    assert not may_shrink([Tenure("n1", 1.0, False), Tenure("n1", 2.0, True)], {})
    # Serve empties n2 first, unless that is the head; then n1.
    busy_n1 = [Tenure("n1", 1.0, False), Tenure("n1", 2.0, True)]
    assert not may_shrink([*busy_n1, Tenure("n2", 1.0, False)], {})
    assert may_shrink([old_busy, new_idle, Tenure("n2", 1.0, False)], {})
    # Other pools' replicas count: here n2 is the fullest node of three.
    many = [Tenure("n3", 1.0, False), old_busy, new_idle, Tenure("n2", 1.0, True)]
    assert may_shrink(many, {"n2": 5})
    assert not may_shrink([], {})
