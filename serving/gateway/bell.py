"""When a model without a ready engine has its demand reported at once. Pure: time is an argument.

The first who waits rings, and the controller wakes the model. But a burst is more than its first
request, and how many engines it needs is known from its size: so the line rings again when it has
grown by half since the last report, and not sooner than AGAIN_S after that one. A burst of a
thousand costs two reports where it comes at once; where it comes slowly each tells of half as many
more, so that it takes 17 at most.
"""

from collections.abc import Callable

GROWTH = 1.5
AGAIN_S = 0.02

Later = Callable[[float, Callable[[], None]], object]
"""Has something called after so many seconds."""


class Bell:
    """One model's; monotonic seconds."""

    def __init__(self, alarm: Callable[[], None]) -> None:
        self._alarm = alarm
        self._told = 0
        self._told_s = float("-inf")
        self._reports = 0
        self._rung = False  # since the last report

    def told(self, waiting: int, now_s: float) -> None:
        """A report tells how many wait."""
        self._told, self._told_s = waiting, now_s
        self._reports += 1
        self._rung = False

    def joined(self, waiting: int, now_s: float, later: Later) -> None:
        """Somebody has come to wait, so many with them, and no engine is there to serve them."""
        is_first = waiting == 1
        if self._rung or not (is_first or waiting >= GROWTH * self._told):
            return
        self._rung = True
        in_s = 0.0 if is_first else self._told_s + AGAIN_S - now_s
        if in_s <= 0.0:
            self._alarm()
            return
        seen = self._reports
        later(in_s, lambda: self._alarm() if self._reports == seen else None)
