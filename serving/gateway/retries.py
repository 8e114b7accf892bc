"""Second tries within a budget, so that a failing fleet is not loaded by them as well. Pure.

Each request adds RETRY_SHARE of a retry to the budget, and time adds FLOOR_PER_S. A retry beyond it
waits until its turn: no request is lost by the budget, it only spreads them.
"""

RETRY_SHARE = 0.1

FLOOR_PER_S = 5.0
"""For models with little traffic."""

SAVED_MAX = 20.0
"""Retries that may come at once after a time without any."""


class RetryBudget:
    """One model's; times are monotonic seconds."""

    def __init__(self) -> None:
        self._left = SAVED_MAX
        self._at_s = 0.0

    def request(self) -> None:
        """A request was sent for the first time."""
        self._left = min(SAVED_MAX, self._left + RETRY_SHARE)

    def retry(self, now_s: float) -> float:
        """Takes a retry out, and says after how many seconds it may go."""
        if now_s > self._at_s:
            self._left = min(SAVED_MAX, self._left + (now_s - self._at_s) * FLOOR_PER_S)
            self._at_s = now_s
        self._left -= 1.0
        return max(0.0, -self._left / FLOOR_PER_S)
