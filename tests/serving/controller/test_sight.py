"""What the policy sees: room in the pool, measured starts, the objectives of this hour."""

from collections import Counter

import pytest

from serving.controller.demand import Counts, Demand
from serving.controller.moment import Moment
from serving.controller.sight import Claim, cold_start_s, look, rooms
from serving.controller.traces import Trace
from serving.protocol import StartPhase


def start(bound_at: float | None, routed_at: float | None) -> Trace:
    marks = {StartPhase.DECIDED: 0.0}
    if bound_at is not None:
        marks[StartPhase.BOUND] = bound_at
    if routed_at is not None:
        marks[StartPhase.ROUTED] = routed_at
    return Trace("s", "e", "guide", 1, "h", "n", marks)


def test_cold_start_is_a_high_quantile_of_the_newest_starts_without_the_wait_for_a_host() -> None:
    starts = [start(10.0, 10.0 + n) for n in range(1, 11)]
    assert cold_start_s(starts, 99.0) == 9.0
    assert cold_start_s([start(50.0, 50.5)], 99.0) == 0.5


@pytest.mark.parametrize("bad", [start(None, 5.0), start(5.0, None), start(5.0, 4.0)])
def test_start_that_got_nowhere_or_whose_clock_jumped_is_left_out(bad: Trace) -> None:
    assert cold_start_s([bad], 1.0) == 1.0
    assert cold_start_s([bad, start(0.0, 2.0)], 1.0) == 2.0


def test_room_is_what_is_free_what_may_grow_and_what_lower_priorities_can_spare() -> None:
    claims = {
        "mine": Claim("cpu", 0, 1),
        "lower": Claim("cpu", -1, 2),
        "equal": Claim("cpu", 0, 5),
        "higher": Claim("cpu", 1, 5),
        "elsewhere": Claim("h200x1", -1, 5),
    }
    found = rooms(claims, Counter(cpu=1), {"cpu": 3})
    assert (found["mine"], found["lower"], found["higher"]) == (6, 4, 12)
    assert rooms(claims, {}, {})["elsewhere"] == 0


def test_snapshot_without_a_gateway_knows_no_demand() -> None:
    seen = look([], 2, None, 3, 0.5, None, Moment(10.0, 0.0))
    assert (seen.queued, seen.in_flight, seen.draining, seen.available) == (None, None, 2, 3)


def test_snapshot_bears_what_gateways_told() -> None:
    asked = Demand(
        queued=2, in_flight=3, queued_tokens=70, prefill_tokens=9,
        counts=Counts(4, 100, 2, 30, 1), asked_since_s=8.5,
    )  # fmt: skip
    seen = look([], 0, asked, None, 0.5, None, Moment(10.0, 0.0))
    assert (seen.queued, seen.in_flight, seen.queued_tokens, seen.prefill_tokens) == (2, 3, 70, 9)
    assert (seen.arrivals, seen.arrived_tokens, seen.finished, seen.missed) == (4, 100, 2, 1)
    assert seen.oldest_wait_s == 1.5
    earlier = look([], 0, asked, None, 0.5, None, Moment(5.0, 0.0))
    assert earlier.oldest_wait_s == 0.0  # a clock that was set back: nobody waits from the future
