"""Windows of the week and the bounds that they set; all times are wall clocks somewhere."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.errors import ManifestError
from models.manifest import parse_manifest
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
        ({"min": 1, "cron": "* * * * *", "for_s": 59}, "for_s"),
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


BERLIN = "Europe/Berlin"
NIGHTLY = ScheduleSpec(cron="30 2 * * *", until="0 3 * * *", timezone=BERLIN, min=1)


def test_cron_window_lasts_until_the_next_end() -> None:
    office = ScheduleSpec(cron="0 8 * * mon-fri", until="0 18 * * mon-fri", min=2)
    story = [
        (at(23, 7, 59), False),  # a Monday
        (at(23, 8), True),
        (at(23, 17, 59), True),
        (at(23, 18), False),
        (at(22, 12), False),
    ]
    assert [office.holds_at(moment) for moment, _ in story] == [holds for _, holds in story]
    weekend = ScheduleSpec(cron="0 20 * * fri", until="0 6 * * mon", max=0)
    assert [weekend.holds_at(at(day, 12)) for day in range(20, 24)] == [False, True, True, False]


def test_cron_window_lasts_for_its_time() -> None:
    close = ScheduleSpec(cron="0 18 31 * *", for_s=5400, min=3)
    october = datetime(2026, 10, 31, 18, tzinfo=ZoneInfo("UTC")).timestamp()
    held = [close.holds_at(october + passed) for passed in (-0.1, 0.0, 5399.9, 5400.0)]
    assert held == [False, True, True, False]
    assert not close.holds_at(october + 30 * 86_400)  # November has no 31st


def test_cron_window_that_ends_and_begins_in_one_minute_goes_on() -> None:
    days = ScheduleSpec(cron="0 0 * * mon-fri", until="0 0 * * tue-sat", min=1)
    assert all(days.holds_at(at(day, hour)) for day in range(23, 28) for hour in (0, 12, 23))
    assert not days.holds_at(at(28, 0))


def test_cron_window_reads_the_clock_on_the_wall_where_the_hour_changes() -> None:
    spring = datetime(2026, 3, 29, 0, 45, tzinfo=ZoneInfo("UTC")).timestamp()  # 01:45, then 03:00
    assert not any(NIGHTLY.holds_at(spring + 60 * n) for n in range(60))  # never, and not all day
    # 02:00, and an hour later again.
    autumn = datetime(2026, 10, 25, 0, tzinfo=ZoneInfo("UTC")).timestamp()
    held = [NIGHTLY.holds_at(autumn + 900 * n) for n in range(9)]
    assert held == [False, False, True, True, False, False, True, True, False]


moments = st.one_of(
    st.floats(0, 4e9),
    # Around the changes of the hour of 2026 in Berlin, Lord Howe (half an hour) and St. John's.
    *(
        st.floats(change - 90_000, change + 90_000)
        for change in (1774746000, 1792890000, 1775314800, 1791041400, 1772947800, 1793507400)
    ),
)
zones = st.sampled_from(
    ["UTC", BERLIN, "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu"]
)
hours = st.tuples(st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))


@settings(deadline=None)
@given(moments, zones, hours, hours, st.sets(st.sampled_from(list(Day)), min_size=1))
def test_hours_and_cron_say_the_same_at_every_moment(
    moment: float,
    zone: str,
    start: tuple[int, int],
    end: tuple[int, int],
    days: set[Day],
) -> None:
    by_hours = ScheduleSpec(
        days=tuple(days),
        start=f"{start[0]:02}:{start[1]:02}",
        end=f"{end[0]:02}:{end[1]:02}",
        timezone=zone,
        min=1,
    )
    order = list(Day)
    later = days if start < end else {order[order.index(day) - 6] for day in days}  # the day after
    began, ended = f"{start[1]} {start[0]} * * ", f"{end[1]} {end[0]} * * "
    if start == end and later == days:
        return  # for ever: refused as cron
    by_cron = ScheduleSpec(
        cron=began + ",".join(days), until=ended + ",".join(later), timezone=zone, min=1
    )
    assert by_cron.holds_at(moment) == by_hours.holds_at(moment)


@settings(deadline=None)
@given(moments, zones, st.sampled_from(["*/7 * * * *", "13 */3 * * *", "30 2 * * *"]),
       st.sampled_from([60.0, 90.5, 1800.0, 7200.0]))  # fmt: skip
def test_cron_window_for_a_time_is_what_a_walk_over_the_clock_finds(
    moment: float, zone: str, cron: str, for_s: float
) -> None:
    window = ScheduleSpec(cron=cron, for_s=for_s, timezone=zone, min=1)
    wall = datetime.fromtimestamp(moment, ZoneInfo(zone)).replace(tzinfo=None)
    begins = wall.replace(second=0, microsecond=0)
    minutes, hours, *_ = cron.split()
    while (wall - begins).total_seconds() < for_s:
        if _fits(minutes, begins.minute) and _fits(hours, begins.hour):
            break
        begins -= timedelta(minutes=1)
    assert window.holds_at(moment) == ((wall - begins).total_seconds() < for_s)


def _fits(word: str, value: int) -> bool:
    span, _, step = word.partition("/")
    return value % int(step) == 0 if span == "*" and step else span in ("*", str(value))


@pytest.mark.parametrize(
    ("fields", "word", "hint"),
    [
        ({"cron": "* * * *", "for_s": 60}, "4 fields", "0 8 * * mon-fri"),
        ({"cron": "0 8 * * *", "until": "0 25 * * *"}, "hour: '25'", "0 to 23"),
        ({"cron": "0 8 * * *"}, "for_s or until", "days, start and end"),
        ({"cron": "0 8 * * *", "for_s": 60, "until": "0 9 * * *"}, "not both", "for_s or until"),
        ({"cron": "0 8 * * *", "for_s": 60, "start": "08:00"}, "in place of", "for_s or until"),
        ({"cron": "0 8 * * *", "for_s": 60, "days": ["mon"]}, "in place of", "for_s or until"),
        ({"until": "0 8 * * *"}, "need cron", "for_s or until"),
        ({"cron": "0 8 * * 0", "until": "00 8 * * SUN"}, "never end", "beside the schedule"),
    ],
)
def test_impossible_cron_window_is_refused_with_what_to_write(
    fields: dict[str, object], word: str, hint: str
) -> None:
    document = {
        "name": "demo", "source": "builtin://guide",
        "scaling": {"schedule": [{"min": 1, **fields}]},
    }  # fmt: skip
    with pytest.raises(ManifestError) as caught:
        parse_manifest(document)
    assert word in str(caught.value)
    assert hint in (caught.value.hint or "")
    assert (caught.value.param or "").startswith("scaling.schedule.0")


def test_cron_window_that_was_stored_with_its_defaults_is_read_again() -> None:
    assert ScheduleSpec.model_validate_json(NIGHTLY.model_dump_json()) == NIGHTLY
