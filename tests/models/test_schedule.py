"""Windows of the week and the bounds that they set; all times are wall clocks somewhere."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.schedule import Day, ScheduleSpec, bounds_at

# 2026-11-23 is a Monday.
OFFICE = ScheduleSpec(days=(Day.MON, Day.TUE), start="08:00", end="18:00", min=2, max=6)
NIGHT = ScheduleSpec(days=(Day.FRI,), start="22:00", end="06:00", max=0)


def at(day: int, hour: int, minute: int = 0, zone: str = "UTC") -> float:
    return datetime(2026, 11, day, hour, minute, tzinfo=ZoneInfo(zone)).timestamp()


def test_window_opens_and_closes_to_the_minute() -> None:
    story = [
        (at(23, 7, 59), False),
        (at(23, 8), True),
        (at(24, 17, 59), True),
        (at(24, 18), False),
        (at(25, 12), False),  # a Wednesday
    ]
    assert [OFFICE.holds_at(moment) for moment, _ in story] == [holds for _, holds in story]


def test_window_over_midnight_belongs_to_the_day_it_begins() -> None:
    assert NIGHT.holds_at(at(27, 23))  # Friday night
    assert NIGHT.holds_at(at(28, 5, 59))  # Saturday morning
    assert not NIGHT.holds_at(at(28, 23))
    assert not NIGHT.holds_at(at(27, 5))


def test_window_follows_the_wall_clock_of_its_zone_over_a_change_of_the_hour() -> None:
    window = ScheduleSpec(start="08:00", end="09:00", timezone="Europe/Berlin", min=1)
    summer = datetime(2026, 7, 1, 6, 30, tzinfo=ZoneInfo("UTC")).timestamp()
    winter = datetime(2026, 12, 1, 7, 30, tzinfo=ZoneInfo("UTC")).timestamp()
    assert window.holds_at(summer)
    assert window.holds_at(winter)
    assert not window.holds_at(winter - 3600)


def test_last_window_listed_counts_and_what_it_sets_wins() -> None:
    assert bounds_at((OFFICE,), 0, 1, at(23, 12)) == (2, 6)
    assert bounds_at((OFFICE,), 0, 1, at(23, 20)) == (0, 1)
    only_max = ScheduleSpec(max=0)
    assert bounds_at((only_max,), 1, 3, at(23, 12)) == (0, 0)
    only_min = ScheduleSpec(min=5)
    assert bounds_at((only_min,), 0, 3, at(23, 12)) == (5, 5)
    assert bounds_at((OFFICE, only_max), 0, 1, at(23, 12)) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "min or max"),
        ({"min": 3, "max": 2}, "above max"),
        ({"min": 1, "timezone": "Mars/Olympus"}, "time zone"),
        ({"min": 1, "timezone": "../etc/passwd"}, "time zone"),
        ({"min": 1, "start": "25:00"}, "start"),
        ({"min": 1, "days": ["monday"]}, "days"),
        ({"min": 1, "days": []}, "days"),
        ({"min": 1, "cron": "* * * * *"}, "cron"),
    ],
)
def test_impossible_window_is_refused(fields: dict[str, object], word: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ScheduleSpec.model_validate(fields)
    assert word in str(caught.value)


windows = st.builds(
    lambda low, more, start, end, days: ScheduleSpec(
        min=low, max=low + more, start=f"{start:02}:00", end=f"{end:02}:30", days=tuple(days)
    ),
    st.integers(0, 5), st.integers(0, 5), st.integers(0, 23), st.integers(0, 23),
    st.lists(st.sampled_from(list(Day)), min_size=1),
)  # fmt: skip


@given(st.lists(windows, max_size=4), st.floats(0, 4e9), st.integers(0, 5), st.integers(0, 5))
def test_bounds_are_always_a_range(
    schedule: list[ScheduleSpec], moment: float, low: int, more: int
) -> None:
    lowest, highest = bounds_at(schedule, low, low + more, moment)
    assert 0 <= lowest <= highest
