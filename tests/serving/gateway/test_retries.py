"""The budget of second tries."""

from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.retries import FLOOR_PER_S, RETRY_SHARE, SAVED_MAX, RetryBudget


def test_retries_within_the_budget_go_at_once_and_others_wait_their_turn() -> None:
    budget = RetryBudget()
    waits = [budget.retry(0.0) for _ in range(int(SAVED_MAX) + 10)]
    assert waits[: int(SAVED_MAX)] == [0.0] * int(SAVED_MAX)
    assert waits[-1] == 10 / FLOOR_PER_S


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 50), st.integers(0, 50)), max_size=60))
def test_retries_stay_below_a_tenth_of_requests_and_the_floor(
    rounds: list[tuple[float, int, int]],
) -> None:
    budget, now_s, requests = RetryBudget(), 0.0, 0
    goes_at_s: list[float] = []
    for pause_s, new, retries in rounds:
        now_s += pause_s
        for _ in range(new):
            budget.request()
        requests += new
        goes_at_s += [now_s + budget.retry(now_s) for _ in range(retries)]
        allowed = SAVED_MAX + RETRY_SHARE * requests + FLOOR_PER_S * now_s
        assert sum(at_s <= now_s for at_s in goes_at_s) <= allowed + 1
