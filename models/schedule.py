"""Bounds that hold at certain hours: windows of the week in a time zone. Pure: time is an argument.

A window is what KEDA's cron scaler makes of its `start` and `end`: while the clock on the wall is
inside, the bounds are its own. Days and hours, and no cron syntax: nobody has to look five stars
up to know when a model is awake.
"""

import datetime as dt
import zoneinfo
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Hour = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]


class Day(StrEnum):
    """Days of the week, in the order of `datetime.weekday()`."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


DAYS = tuple(Day)


class ScheduleSpec(BaseModel):
    """Bounds of their own for some hours of some days."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    days: tuple[Day, ...] = DAYS
    """Days on which the window begins: `mon` to `sun`; all by default."""
    start: Hour = "00:00"
    """When it begins, as `08:00`."""
    end: Hour = "24:00"
    """When it ends, this minute not included; at or before `start` it ends on the next day."""
    timezone: str = "UTC"
    """Name in the IANA database, as `Europe/Berlin`."""
    min: int | None = Field(default=None, ge=0, le=1000)
    """Engines that run meanwhile even when nobody asks; by default as outside."""
    max: int | None = Field(default=None, ge=0, le=1000)
    """Engines that run meanwhile at most; by default as outside."""

    @field_validator("days")
    @classmethod
    def _names_a_day(cls, days: tuple[Day, ...]) -> tuple[Day, ...]:
        if not days:
            raise ValueError("name at least one day, or leave it out for all of them")
        return days

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise ValueError(f"there is no time zone {name!r}; as Europe/Berlin or UTC") from exc
        return name

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a schedule's entry has to set min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) must not be above max ({self.max})")
        return self

    def holds_at(self, at: float) -> bool:
        """Whether the window is open at a moment, in Unix seconds, by the clock on the wall."""
        local = dt.datetime.fromtimestamp(at, zoneinfo.ZoneInfo(self.timezone))
        minute, start, end = (
            local.hour * 60 + local.minute,
            _minutes(self.start),
            _minutes(self.end),
        )
        today = DAYS[local.weekday()] in self.days
        if start < end:
            return today and start <= minute < end
        yesterday = DAYS[local.weekday() - 1] in self.days
        return (today and minute >= start) or (yesterday and minute < end)


def bounds_at(
    schedule: Sequence[ScheduleSpec], lowest: int, highest: int, at: float
) -> tuple[int, int]:
    """The bounds at a moment; of windows that overlap, the last one listed says what it sets.

    Where only one bound is set and passes the other, the one that is set wins.
    """
    for window in schedule:
        if not window.holds_at(at):
            continue
        if window.max is not None:
            highest = window.max
            lowest = min(lowest, highest)
        if window.min is not None:
            lowest = window.min
            highest = max(lowest, highest)
    return lowest, highest


def _minutes(hour: str) -> int:
    hours, _, minutes = hour.partition(":")
    return int(hours) * 60 + int(minutes)
