"""Meters: what was used lately, exactly enough. Pure: time (Unix seconds) is an argument."""

import math
import time
from typing import Protocol

SPAN_S = 60.0

GRAIN_S = 0.25
"""Uses are remembered together for so long, and forgotten when the last of them is SPAN_S old: a
window is never exceeded, and up to GRAIN_S / SPAN_S = 0.4 % of it may lie idle."""


class Book(Protocol):
    """Keeps what was used."""

    def used(self, at: float) -> int:
        """What counts at this moment."""
        ...

    def add(self, at: float, amount: int) -> str | int:
        """Counts a use; the answer is for `correct`."""
        ...

    def correct(self, mark: str | int, difference: int, at: float) -> None:
        """Changes a use of before, where it still counts: now more, or less, is known of it."""
        ...

    def frees_in_s(self, at: float, amount: int, cap: int) -> float:
        """Seconds until an amount fits below a cap if nothing else happens."""
        ...

    def resets_in_s(self, at: float) -> float:
        """Seconds until nothing is used any more if nothing else happens."""
        ...


class Window:
    """What was used in any SPAN_S."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}  # oldest first
        self._total = 0
        self._newest = -(2**62)
        self._forgets_at = math.inf  # when the oldest bucket counts no more

    def used(self, at: float) -> int:
        """As Book."""
        if at >= self._forgets_at:
            self._forget(at)
        return self._total

    def add(self, at: float, amount: int) -> int:
        """As Book."""
        if at >= self._forgets_at:
            self._forget(at)
        bucket = max(int(at / GRAIN_S), self._newest)
        if not self._buckets:
            self._forgets_at = _ends_at(bucket)
        self._newest = bucket
        self._buckets[bucket] = self._buckets.get(bucket, 0) + amount
        self._total += amount
        return bucket

    def correct(self, mark: str | int, difference: int, at: float) -> None:
        """As Book."""
        if at >= self._forgets_at:
            self._forget(at)
        if isinstance(mark, int) and mark in self._buckets:
            self._buckets[mark] += difference
            self._total += difference

    def frees_in_s(self, at: float, amount: int, cap: int) -> float:
        """As Book."""
        left = self.used(at)
        if amount > cap:
            return SPAN_S
        for bucket, used in self._buckets.items():
            if left + amount <= cap:
                break
            left -= used
            end_s = _ends_at(bucket) - at
            if left + amount <= cap:
                return max(0.0, end_s)
        return 0.0

    def resets_in_s(self, at: float) -> float:
        """As Book."""
        return _ends_at(self._newest) - at if self.used(at) else 0.0

    def _forget(self, at: float) -> None:
        while self._buckets:
            oldest = next(iter(self._buckets))
            self._forgets_at = _ends_at(oldest)
            if at < self._forgets_at:
                return
            self._total -= self._buckets.pop(oldest)
        self._forgets_at = math.inf


def _ends_at(bucket: int) -> float:
    """When the last use of a bucket is SPAN_S old."""
    return (bucket + 1) * GRAIN_S + SPAN_S


class Present:
    """What is in use right now."""

    def __init__(self) -> None:
        self._now = 0

    def used(self, _at: float) -> int:
        """As Book."""
        return self._now

    def add(self, _at: float, amount: int) -> int:
        """As Book."""
        self._now += amount
        return 0

    def correct(self, _mark: str | int, difference: int, _at: float) -> None:
        """As Book."""
        self._now += difference

    def frees_in_s(self, _at: float, _amount: int, _cap: int) -> float:
        """As Book: nobody knows, so a second."""
        return 1.0

    def resets_in_s(self, at: float) -> float:
        """As Book."""
        return 1.0 if self.used(at) else 0.0


class Calendar:
    """What was used in the present day or month, UTC.

    Args:
        form: Of the period's name: `%Y-%m-%d` or `%Y-%m`.
    """

    def __init__(self, form: str) -> None:
        self._form = form
        self._used = 0
        self._period = ""
        self._ends = 0.0

    def period(self, at: float) -> str:
        """The name of the present period."""
        if at >= self._ends or not self._period:
            now = time.gmtime(at)
            period = time.strftime(self._form, now)
            if period != self._period:
                self._period, self._used = period, 0
            self._ends = at - at % 86_400 + 86_400  # looked at again at the next midnight
        return self._period

    def used(self, at: float) -> int:
        """As Book."""
        self.period(at)
        return self._used

    def add(self, at: float, amount: int) -> str:
        """As Book."""
        period = self.period(at)
        self._used += amount
        return period

    def correct(self, mark: str | int, difference: int, at: float) -> None:
        """As Book."""
        if self.period(at) == mark:
            self._used += difference

    def frees_in_s(self, at: float, _amount: int, _cap: int) -> float:
        """As Book: until the next midnight; the month's end may be further."""
        self.period(at)
        return self._ends - at

    def resets_in_s(self, at: float) -> float:
        """As Book."""
        return self.frees_in_s(at, 0, 0)
