from itertools import pairwise

import pytest

from loadtests.fake.timeline import Schedule, ScheduledTimeline, Sequence


def sequence(max_tokens: int, seed: int = 0) -> Sequence:
    return Sequence(["p"], max_tokens, reply=lambda index: f"t{index}", seed=seed)


def test_schedule_without_spread_is_even() -> None:
    assert Schedule(0.1, 0.02).offsets(7, 3) == pytest.approx([0.1, 0.12, 0.14])


def test_schedule_with_spread_follows_from_the_seed_and_stays_within_it() -> None:
    schedule = Schedule(0.1, 0.02, spread=0.5)
    offsets = schedule.offsets(3, 100)
    assert offsets == schedule.offsets(3, 100)
    assert offsets != schedule.offsets(4, 100)
    assert offsets[:50] == schedule.offsets(3, 50)
    gaps = [b - a for a, b in pairwise(offsets)]
    assert 0.05 <= offsets[0] <= 0.15
    assert all(0.01 <= gap <= 0.03 for gap in gaps)


def test_timeline_interleaves_sequences_in_order_of_due_time() -> None:
    timeline = ScheduledTimeline(Schedule(0.1, 0.02))
    first, second = sequence(2), sequence(2)
    timeline.submit(first, 1.0)
    timeline.submit(second, 1.01)
    assert timeline.next_due_s() == pytest.approx(1.1)
    emissions = timeline.advance(2.0)
    assert [(e.sequence, e.index, e.last) for e in emissions] == [
        (first, 0, False),
        (second, 0, False),
        (first, 1, True),
        (second, 1, True),
    ]
    assert [e.due_s for e in emissions] == pytest.approx([1.1, 1.11, 1.12, 1.13])
    assert timeline.next_due_s() is None
    assert timeline.running == 0


def test_cancelled_sequence_yields_nothing_more() -> None:
    timeline = ScheduledTimeline(Schedule(0.1, 0.02))
    one = sequence(5)
    timeline.submit(one, 0.0)
    assert len(timeline.advance(0.13)) == 2
    timeline.cancel(one)
    timeline.cancel(one)
    assert timeline.running == 0
    assert timeline.next_due_s() is None
    assert timeline.advance(9.0) == []
