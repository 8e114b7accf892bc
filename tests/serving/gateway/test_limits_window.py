"""Windows: never more than the limit in any minute, and hardly less."""

from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.limits_window import GRAIN_S, SPAN_S, Calendar, Present, Window

MONDAY = 1_700_438_400.0  # 2023-11-20 00:00:00 UTC

USES = st.lists(
    st.tuples(st.floats(0, 40), st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=60
)


@given(USES, st.integers(1, 60))
def test_window_never_lets_more_through_than_its_limit(
    uses: list[tuple[float, int, int]], limit: int
) -> None:
    window = Window()
    at, let_in = MONDAY, list[tuple[float, int]]()
    for pause, reserved, took in uses:
        at += pause
        if window.used(at) + reserved > limit:
            continue
        mark = window.add(at, reserved)
        took = min(took, reserved)
        window.correct(mark, took - reserved, at)
        let_in.append((at, took))
        in_window = sum(amount for when, amount in let_in if at - when < SPAN_S)
        assert in_window <= limit
        assert window.used(at) >= in_window


@given(USES, st.integers(20, 60))
def test_window_frees_what_it_says_when_it_says(
    uses: list[tuple[float, int, int]], limit: int
) -> None:
    window = Window()
    at = MONDAY
    for pause, amount, _ in uses:
        at += pause
        wait_s = window.frees_in_s(at, amount, limit)
        assert (wait_s == 0) == (window.used(at) + amount <= limit)
        assert window.used(at + wait_s + 1e-6) + amount <= limit
        if wait_s == 0:
            window.add(at, amount)


def test_window_forgets_a_use_within_a_grain_of_its_age() -> None:
    window = Window()
    window.add(MONDAY + 0.1, 5)
    assert window.used(MONDAY + 0.1 + SPAN_S - 1e-3) == 5
    assert window.used(MONDAY + 0.1 + SPAN_S + GRAIN_S) == 0
    assert window.resets_in_s(MONDAY) == 0


def test_refund_is_there_at_once_and_too_late_a_one_changes_nothing() -> None:
    window = Window()
    mark = window.add(MONDAY, 100)
    window.correct(mark, -90, MONDAY + 1)
    assert window.used(MONDAY + 1) == 10
    assert window.used(MONDAY + 61) == 0
    window.correct(mark, -10, MONDAY + 61)
    assert window.used(MONDAY + 61) == 0


def test_window_keeps_its_order_when_the_clock_goes_back() -> None:
    window = Window()
    window.add(MONDAY + 100, 1)
    window.add(MONDAY, 1)
    assert window.used(MONDAY + 100) == 2
    assert window.used(MONDAY + 161) == 0


def test_present_counts_who_is_there() -> None:
    present = Present()
    mark = present.add(0, 1)
    present.add(0, 1)
    present.correct(mark, -1, 0)
    assert present.used(0) == 1


def test_calendar_begins_anew_with_each_period() -> None:
    day, month = Calendar("%Y-%m-%d"), Calendar("%Y-%m")
    marks = [book.add(MONDAY + 10, 7) for book in (day, month)]
    assert marks == ["2023-11-20", "2023-11"]
    assert day.frees_in_s(MONDAY + 10, 1, 7) == 86_390
    tomorrow = MONDAY + 86_400
    assert (day.used(tomorrow), month.used(tomorrow)) == (0, 7)
    day.correct(marks[0], -7, tomorrow)  # of yesterday: today's budget is another
    month.correct(marks[1], -3, tomorrow)
    assert (day.used(tomorrow), month.used(tomorrow)) == (0, 4)
    assert month.used(MONDAY + 11 * 86_400) == 0
