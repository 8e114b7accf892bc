"""Bounds that hold at certain hours: windows of the week, or of cron expressions, in a time zone.
Pure: time is an argument.

A window is what KEDA's cron scaler makes of its `start` and `end`: while the clock on the wall is
inside, the bounds are its own. Days and hours say what most need; a cron expression says the rest,
as the last hours of a month.

Only the reading of the clock on the wall counts. So what would begin or end in an hour that is
skipped does so as the clock jumps, and an hour that comes twice is inside both times or not at all.
"""

import datetime as dt
import zoneinfo
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.cron import CronError, last_named, parse_cron

Hour = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]
CronText = Annotated[str, Field(max_length=200)]

EITHER_WAY = "either days, start and end, or cron with for_s or until"


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
WHOLE_DAY = ("00:00", "24:00")


class ScheduleSpec(BaseModel):
    """Bounds of their own for some hours of some days, or from when a cron expression says so."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    days: tuple[Day, ...] = DAYS
    """Days on which the window begins: `mon` to `sun`; all by default."""
    start: Hour = WHOLE_DAY[0]
    """When it begins, as `08:00`."""
    end: Hour = WHOLE_DAY[1]
    """When it ends, this minute not included; at or before `start` it ends on the next day."""
    cron: CronText | None = None
    """When it begins, in place of `days`, `start` and `end`: a cron expression of five fields
    (minute, hour, day of the month, month, day of the week), as `0 8 * * mon-fri`."""
    for_s: float | None = Field(default=None, ge=60, le=31 * 86_400)
    """How long it lasts from each minute that `cron` names, in seconds."""
    until: CronText | None = None
    """When it ends, in place of `for_s`: a cron expression. Where both come at the same minute, the
    window begins."""
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

    @field_validator("cron", "until")
    @classmethod
    def _is_cron(cls, text: str | None) -> str | None:
        if text is not None:
            parse_cron(text)
        return text

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

    @model_validator(mode="after")
    def _says_when_once(self) -> Self:
        ends = (self.for_s is not None) + (self.until is not None)
        if self.cron is None:
            if ends:
                raise CronError("for_s and until need cron", EITHER_WAY)
            return self
        # By value: a manifest that was stored and read again names the defaults too.
        if self.days != DAYS or (self.start, self.end) != WHOLE_DAY:
            raise CronError("cron stands in place of days, start and end", EITHER_WAY)
        if ends != 1:
            raise CronError("cron needs for_s or until, and not both", EITHER_WAY)
        if self.until is not None and parse_cron(self.until) == parse_cron(self.cron):
            raise CronError(
                "until names the same minutes as cron, so that it would never end",
                "min and max beside the schedule hold always",
            )
        return self

    def holds_at(self, at: float) -> bool:
        """Whether the window is open at a moment, in Unix seconds, by the clock on the wall."""
        local = dt.datetime.fromtimestamp(at, zoneinfo.ZoneInfo(self.timezone))
        if self.cron is not None:
            return self._cron_holds(self.cron, local.replace(tzinfo=None, fold=0))
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

    def _cron_holds(self, cron: str, wall: dt.datetime) -> bool:
        minute = wall.replace(second=0, microsecond=0)
        if (began := last_named(cron, minute)) is None:
            return False
        if self.until is None:
            return (wall - began).total_seconds() < (self.for_s or 0.0)
        ended = last_named(self.until, minute)
        return ended is None or ended <= began


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
