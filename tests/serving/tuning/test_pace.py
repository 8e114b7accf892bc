"""What trials took decides what is still begun."""

import pytest

from serving.tuning.pace import COST, LEAST_ARMS, Pace


def pace(*took_s: float, budget_s: float = 600.0, pairs: int = 10) -> Pace:
    found = Pace(budget_s, pairs)
    for one in took_s:
        found.note(0, one, gave_figures=True)
    return found


def test_price_is_the_median_and_the_cold_first_one_does_not_count_for_more() -> None:
    assert pace(60.0, 6.0).price_s(0) == 6.0
    assert pace(60.0, 6.0, 7.0, 5.0, 8.0).price_s(0) == 7.0


def test_price_of_a_rung_is_its_own_once_it_was_tried() -> None:
    found = pace(10.0)
    assert found.price_s(1) == pytest.approx(10.0 * COST[1])
    found.note(1, 12.0, gave_figures=True)
    assert found.price_s(1) == 12.0
    assert found.price_s(2) == pytest.approx(12.0 * COST[2] / COST[1])


def test_failed_trials_are_spent_and_price_nothing_where_others_gave_figures() -> None:
    found = pace(10.0)
    found.note(0, 180.0, gave_figures=False)
    assert found.price_s(0) == 10.0
    assert found.spent_s == 190.0


def test_before_any_figures_failed_trials_are_the_price() -> None:
    found = pace()
    assert found.price_s(0) == 0.0
    found.note(0, 180.0, gave_figures=False)
    assert found.price_s(0) == 180.0


def test_quick_trials_leave_more_to_the_search_and_slow_ones_half() -> None:
    assert pace(4.0).search_s == pytest.approx(600.0 - 1.25 * 20 * 4.0 * COST[1])
    assert pace(40.0).search_s == 300.0
    assert pace(40.0, pairs=0).search_s == 600.0


def test_the_first_trial_always_fits_and_few_arms_where_only_few_can() -> None:
    assert pace(budget_s=0.001).has_room(0, 1)
    assert pace(40.0).has_room(0, LEAST_ARMS)
    assert not pace(40.0).has_room(0, LEAST_ARMS + 1)
    assert pace(4.0).has_room(0, LEAST_ARMS + 1)


def test_pairs_are_priced_by_what_pairs_took() -> None:
    found = pace(100.0, budget_s=150.0)
    assert not found.has_room_for_pair(1)
    found.note_pair(5.0)
    found.note_pair(5.0)
    assert found.has_room_for_pair(1)


def test_pairs_are_short_where_few_long_ones_would_fit() -> None:
    assert pace(5.0).pair_rung() == 1
    assert pace(33.0, 33.0, 33.0, budget_s=240.0).pair_rung() == 0
    assert pace(20.0, budget_s=100.0, pairs=1).pair_rung() == 1
