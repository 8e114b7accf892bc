"""The bell: a burst at a sleeping model is told while it grows, in few reports."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway.bell import AGAIN_S, Bell

POST_S = 0.002
"""How long a report takes to be answered; the next one begins no sooner."""
INTERVAL_S = 0.25


class Reporter:
    """A gateway's reports on a clock of the test's own: at once when the bell rings, else each
    INTERVAL_S."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waiting = 0
        self.told: list[tuple[float, int]] = []  # (s, how many wait)
        self.rung = 0
        self._urgent = False
        self._free_s = 0.0
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.bell = Bell(self._alarm)

    def _alarm(self) -> None:
        self.rung += 1
        self._urgent = True

    def come(self, at_s: float) -> None:
        self.until(at_s)
        self.waiting += 1
        self.bell.joined(self.waiting, self.now_s, self._later)
        self._report_if_due()

    def until(self, at_s: float) -> None:
        """Lets the time pass, with all that falls due on the way."""
        while True:
            due = [when for when, _ in self._timers] + [self._next_report_s()]
            if min(due) > at_s:
                self.now_s = at_s
                return
            self.now_s = max(self.now_s, min(due))
            for timer in [one for one in self._timers if one[0] <= self.now_s]:
                self._timers.remove(timer)
                timer[1]()
            self._report_if_due()

    def _later(self, in_s: float, call: Callable[[], None]) -> None:
        assert in_s > 0.0
        self._timers.append((self.now_s + in_s, call))

    def _next_report_s(self) -> float:
        last_s = self.told[-1][0] if self.told else 0.0
        return max(self.now_s, self._free_s) if self._urgent else last_s + INTERVAL_S

    def _report_if_due(self) -> None:
        if self._next_report_s() <= self.now_s:
            self._urgent = False
            self._free_s = self.now_s + POST_S
            self.told.append((self.now_s, self.waiting))
            self.bell.told(self.waiting, self.now_s)


def test_first_who_waits_rings_at_once_and_only_once() -> None:
    rung: list[bool] = []
    bell = Bell(lambda: rung.append(True))
    for waiting in (1, 2, 3, 50):
        bell.joined(waiting, 1.0, lambda in_s, call: pytest.fail("no report is out yet"))
    assert rung == [True]


def test_burst_is_told_whole_long_before_the_next_interval() -> None:
    burst = Reporter()
    for n in range(1000):
        burst.come(0.005 * n / 1000)
    burst.until(0.2)
    assert burst.told[0] == (0.0, 1)
    assert burst.told[-1] == (pytest.approx(AGAIN_S), 1000)
    assert len(burst.told) == 2


def test_slow_burst_costs_few_reports_and_is_never_half_as_large_again_as_told() -> None:
    burst = Reporter()
    for n in range(1000):
        burst.come(0.24 * n / 1000)
        at_s, told = burst.told[-1]
        assert burst.waiting < 1.5 * told or burst.now_s - at_s <= AGAIN_S + POST_S
    assert len(burst.told) <= 11


def test_line_that_stays_as_it_is_rings_no_more() -> None:
    burst = Reporter()
    for _ in range(4):
        burst.come(0.0)
    burst.until(0.1)
    rung = burst.rung
    burst.come(0.1)  # a fifth: known well enough
    assert burst.rung == rung
    burst.come(0.11)
    assert burst.rung == rung + 1


def test_report_that_comes_first_spares_the_late_ring() -> None:
    rung: list[bool] = []
    timers: list[Callable[[], None]] = []
    bell = Bell(lambda: rung.append(True))
    bell.joined(1, 0.0, lambda in_s, call: None)
    bell.told(1, 0.0)
    bell.joined(2, 0.001, lambda in_s, call: timers.append(call))
    bell.told(2, 0.002)
    (late,) = timers
    late()
    assert rung == [True]


def test_first_who_waits_again_rings_at_once_whatever_was_told() -> None:
    rung: list[bool] = []
    bell = Bell(lambda: rung.append(True))
    bell.told(20, 0.0)
    bell.joined(1, 0.001, lambda in_s, call: pytest.fail("at once"))
    assert rung == [True]


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 0.05), min_size=1, max_size=300))
def test_reports_are_few_and_the_last_one_is_near_the_truth(gaps_s: list[float]) -> None:
    burst = Reporter()
    at_s = 0.0
    for gap_s in gaps_s:
        at_s += gap_s
        burst.come(at_s)
    burst.until(at_s + AGAIN_S + POST_S)
    assert burst.told[-1][1] > burst.waiting / 1.5
    by_interval = at_s / INTERVAL_S + 1
    assert len(burst.told) <= by_interval + 2 + 15  # log of 300 to the base of 1.5 is 14.1
