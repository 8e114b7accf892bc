"""Cron expressions: which minutes they name, and which of these came last. Pure.

Five fields as in crontab(5): minute, hour, day of the month, month, day of the week. A field is
`*`, a number, a range, a range or `*` with a step, or several of these with commas; months and days
of the week have names too, and 0 and 7 are Sunday. Where the day of the month and the day of the
week are both restricted (neither begins with `*`), a day that fits one of them will do.

Minutes are readings of a clock on a wall: datetimes without a time zone.
"""

import datetime as dt
import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache

EXAMPLE = "minute, hour, day of the month, month, day of the week: `0 8 * * mon-fri`"
LOOK_BACK = dt.timedelta(days=48 * 366)
"""The rarest day, a 29 February on one day of the week, is 40 years away at most."""
LONGEST_MONTHS = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
"""Days of the months that have not 31."""
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class CronError(ValueError):
    """No cron expression, or one that never comes; `hint` tells what to write."""

    def __init__(self, message: str, hint: str = EXAMPLE) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Cron:
    """The minutes that an expression names; the numbers of each field, rising."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]  # 0 is Sunday
    either: bool  # a day that fits `days` or `weekdays` will do; else it has to fit both

    def last(self, minute: dt.datetime) -> dt.datetime | None:
        """The last minute that is named, this one or before; None if none is within LOOK_BACK."""
        today = minute.date()
        if self._names_day(today) and (time := self._last_time(minute.hour, minute.minute)):
            return dt.datetime.combine(today, time)
        if (day := self._last_day_before(today)) is None:
            return None
        return dt.datetime.combine(day, dt.time(self.hours[-1], self.minutes[-1]))

    def _last_time(self, hour: int, minute: int) -> dt.time | None:
        within = bisect_right(self.minutes, minute)
        if hour in self.hours and within:
            return dt.time(hour, self.minutes[within - 1])
        earlier = bisect_left(self.hours, hour)
        return dt.time(self.hours[earlier - 1], self.minutes[-1]) if earlier else None

    def _last_day_before(self, day: dt.date) -> dt.date | None:
        earliest = day - LOOK_BACK
        while day > earliest:
            day -= dt.timedelta(days=1)
            if day.month not in self.months:
                day = day.replace(day=1)  # on with the month before
            elif self._names_day(day):
                return day
        return None

    def _names_day(self, day: dt.date) -> bool:
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_month or by_week) if self.either else (by_month and by_week)


@lru_cache(maxsize=1024)
def parse_cron(text: str) -> Cron:
    """Reads an expression.

    Raises:
        CronError: Naming the field at fault.
    """
    words = text.lower().split()
    if len(words) != len(FIELDS):
        raise CronError(f"{text!r} has {len(words)} fields; a cron expression has {len(FIELDS)}")
    minutes, hours, days, months, weekdays = (
        tuple(sorted(field.read(word))) for field, word in zip(FIELDS, words, strict=True)
    )
    either = not words[2].startswith("*") and not words[4].startswith("*")
    if not either and all(days[0] > LONGEST_MONTHS.get(month, 31) for month in months):
        raise CronError(f"{text!r} never comes: no such month has a day {days[0]}")
    return Cron(minutes, hours, days, months, weekdays, either)


@lru_cache(maxsize=4096)
def last_named(text: str, minute: dt.datetime) -> dt.datetime | None:
    """As `Cron.last`, remembered: bounds are asked for several times a second."""
    return parse_cron(text).last(minute)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()  # of the values from `low` on

    def read(self, word: str) -> set[int]:
        """The values that a field allows."""
        values = {value for part in word.split(",") for value in self._read_part(part)}
        return {value % 7 for value in values} if self.high == SUNDAY_TOO else values

    def _read_part(self, part: str) -> range:
        span, has_step, step = part.partition("/")
        first, is_range, last = span.partition("-")
        if span == "*":
            low, high = self.low, self.high
        else:
            low = self._value(first)
            high = self._value(last) if is_range else low
            if has_step and not is_range:
                hint = f"write */{step} or {span}-{self.high}/{step}"
                raise CronError(f"{self.name}: a step needs a range, not {part!r}", hint)
        if self.high == SUNDAY_TOO and high == 0 < low:
            high = SUNDAY_TOO  # as in fri-sun
        if low > high:
            hint = f"write {first}-{self.high},{self.low}-{last}"
            raise CronError(f"{self.name}: {span!r} runs backwards", hint)
        if has_step and (not re.fullmatch(r"[0-9]{1,3}", step) or int(step) == 0):
            raise CronError(f"{self.name}: {step!r} is no step", "a whole number from 1 on")
        return range(low, high + 1, int(step) if has_step else 1)

    def _value(self, word: str) -> int:
        if word in self.names:
            return self.low + self.names.index(word)
        if re.fullmatch(r"[0-9]{1,2}", word) and self.low <= int(word) <= self.high:
            return int(word)
        known = f", or {self.names[0]} to {self.names[-1]}" if self.names else ""
        hint = f"a number from {self.low} to {self.high}{known}"
        raise CronError(f"{self.name}: {word!r} is none", hint)


SUNDAY_TOO = 7
"""The highest value of a day of the week, and of no other field."""

FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, MONTHS),
    _Field("day of the week", 0, SUNDAY_TOO, WEEKDAYS),
)
