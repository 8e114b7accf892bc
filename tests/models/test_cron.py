"""Cron expressions against a definition that walks the minutes, and what is no expression."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cron import CronError, last_named, parse_cron

MINUTE = timedelta(minutes=1)
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


def fits(word: str, value: int, names: list[str], first: int) -> bool:
    """By definition: some part of the field has the value in its range, at a whole step from it."""
    for number, name in enumerate(names):
        word = word.replace(name, str(number + first))
    for part in word.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        values = [value, 7] if names is WEEKDAYS and value == 0 else [value]
        for one in values:
            begin = first if span == "*" else int(low)
            end = 99 if span == "*" else int(high or low)
            if begin <= one <= end and (one - begin) % int(step or 1) == 0:
                return True
    return False


def definition(text: str) -> Callable[[datetime], bool]:
    """Whether a minute is named, by the values that fit each field."""
    words = text.lower().split()
    minute, hour, day, month, weekday = (
        {value for value in range(60) if fits(word, value, names, first)}
        for word, names, first in zip(
            words, [[], [], [], MONTHS, WEEKDAYS], [0, 0, 1, 1, 0], strict=True
        )
    )
    restricted = not words[2].startswith("*") and not words[4].startswith("*")

    def is_named(wall: datetime) -> bool:
        by_month, by_week = wall.day in day, wall.isoweekday() % 7 in weekday
        on_day = by_month or by_week if restricted else by_month and by_week
        return on_day and wall.minute in minute and wall.hour in hour and wall.month in month

    return is_named


def words(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    """Fields with numbers, names, ranges, steps and lists; `*` more often than the rest."""
    numbers = st.integers(low, high)
    spans = st.tuples(numbers, numbers).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.tuples(st.one_of(st.just("*"), spans), st.integers(1, 9)).map("{0[0]}/{0[1]}".format)
    parts = [numbers.map(str), spans, steps]
    if names:
        parts.append(st.sampled_from(names))
    listed = st.lists(st.one_of(parts), min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), listed)


texts = st.tuples(
    words(0, 59),
    words(0, 23),
    words(1, 28),
    words(1, 12, tuple(MONTHS)),
    words(0, 7, tuple(WEEKDAYS)),
).map(" ".join)
moments = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(
    lambda at: at.replace(second=0, microsecond=0)
)


@settings(deadline=None)
@given(texts, moments)
def test_last_minute_named_is_the_one_that_a_walk_finds(text: str, wall: datetime) -> None:
    is_named = definition(text)
    walk = (wall - n * MINUTE for n in range(1500))
    found, walked = last_named(text, wall), next(filter(is_named, walk), None)
    if walked is None:
        assert found is None or wall - found >= 1500 * MINUTE
    else:
        assert found == walked


@settings(deadline=None)
@given(texts, moments)
def test_last_minute_named_is_named_and_its_own_last(text: str, wall: datetime) -> None:
    found = last_named(text, wall)
    assert found is not None
    assert found <= wall
    assert definition(text)(found)
    assert last_named(text, found) == found
    before = last_named(text, found - MINUTE)
    assert before is not None
    assert before < found


@pytest.mark.parametrize(
    ("text", "wall", "last"),
    [
        ("0 8 * * mon-fri", datetime(2026, 11, 22, 12), datetime(2026, 11, 20, 8)),  # a Sunday
        ("0 8 * * 1-5", datetime(2026, 11, 23, 7, 59), datetime(2026, 11, 20, 8)),
        ("*/15 * * * *", datetime(2026, 11, 22, 12, 44), datetime(2026, 11, 22, 12, 30)),
        ("0 0 * * FRI-SUN", datetime(2026, 11, 26), datetime(2026, 11, 22)),
        ("0 0 1,15 * sun", datetime(2026, 11, 10), datetime(2026, 11, 8)),  # either will do
        ("0 0 */2 * sun", datetime(2026, 11, 21), datetime(2026, 11, 15)),  # both have to fit
        ("0 0 */2 * sun", datetime(2026, 11, 14), datetime(2026, 11, 1)),
        ("0 0 31 * *", datetime(2026, 12, 30), datetime(2026, 10, 31)),
        ("59 23 29 2 *", datetime(2027, 1, 1), datetime(2024, 2, 29, 23, 59)),
        ("0 0 29 2 */7", datetime(2131, 1, 1), datetime(2128, 2, 29)),  # on a Sunday only
        ("0 0 29 2 */7", datetime(2108, 1, 1), datetime(2088, 2, 29)),  # 2100 has none
        ("0 12 * * sun-sun", datetime(2026, 11, 28), datetime(2026, 11, 22, 12)),
    ],
)
def test_last_minute_named_over_days_months_and_years(
    text: str, wall: datetime, last: datetime
) -> None:
    assert last_named(text, wall) == last


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("0 8 * *", "has 4 fields", "minute, hour"),
        ("0 0 8 * * *", "has 6 fields", "minute, hour"),
        ("", "has 0 fields", "minute, hour"),
        ("@daily", "has 1 fields", "minute, hour"),
        ("60 * * * *", "minute: '60'", "from 0 to 59"),
        ("* 24 * * *", "hour: '24'", "from 0 to 23"),
        ("* * 0 * *", "day of the month: '0'", "from 1 to 31"),
        ("* * * foo *", "month: 'foo'", "jan to dec"),
        ("* * * * mon-", "day of the week: ''", "sun to sat"),
        ("* * * * 8", "day of the week: '8'", "from 0 to 7"),
        ("-5 * * * *", "minute: ''", "from 0 to 59"),
        ("\u0663 * * * *", "minute:", "from 0 to 59"),
        ("1,,2 * * * *", "minute: ''", "from 0 to 59"),
        ("5/10 * * * *", "minute: a step needs a range", "5-59/10"),
        ("*/0 * * * *", "minute: '0' is no step", "from 1 on"),
        ("*/x * * * *", "minute: 'x' is no step", "from 1 on"),
        ("0 22-6 * * *", "hour: '22-6' runs backwards", "22-23,0-6"),
        ("0 0 30 2 *", "never comes", "minute, hour"),
        ("0 0 31 4,jun */2", "never comes", "minute, hour"),
    ],
)
def test_what_is_no_expression_is_refused_with_what_to_write(
    text: str, message: str, hint: str
) -> None:
    with pytest.raises(CronError) as caught:
        parse_cron(text)
    assert message in str(caught.value)
    assert hint in caught.value.hint
