"""How a search shares out its budget, by what its trials really take. Pure.

Everything is reckoned by the trials that this run has gone through so far, whether it made them or
found them in the journal, and by no others: a run that goes on after its death decides as the dead
one did. The first engine of a machine starts with cold caches and takes several times what the next
ones do, so that prices are medians and nothing is sized by the first trial alone.
"""

import math
from dataclasses import dataclass, field
from statistics import median_low

COST = (1.0, 1.6, 2.4)
"""What a trial of each rung takes, over one of the first, where none of it was made yet: starting
the engine stays the same."""
KEPT = 3
"""One in so many goes on to the next rung."""
BESIDE = 2
"""Arms that each later rung has beside these: the defaults, and all that helped together."""
LEAST_ARMS = 3
"""Of the first rung, also where no later one could be finished."""
PAIR_RUNG = 1
"""The rung whose length trials of the comparison have, where time allows."""
LEAST_PAIRS = 5
"""With less time than so many take, the comparison has trials of the first rung's length."""
PAIRS_SHARE = 0.5
"""Of the budget, that is kept for the comparison at most."""
MARGIN = 1.25
"""What is kept for later, over what it should take: trials may take longer than the median."""


@dataclass(slots=True)
class Pace:
    """What trials took, and what may therefore still be spent."""

    budget_s: float
    pairs: int
    """That are wanted at the end."""
    spent_s: float = 0.0
    _took: dict[int, list[float]] = field(default_factory=dict)
    _failed: list[float] = field(default_factory=list)
    _pairs: list[float] = field(default_factory=list)

    def note(self, rung: int, took_s: float, *, gave_figures: bool) -> None:
        """A trial of a rung; one that failed may have taken no time at all, or a time limit."""
        self.spent_s += took_s
        if gave_figures:
            self._took.setdefault(rung, []).append(took_s)
        else:
            self._failed.append(took_s)

    def note_pair(self, took_s: float) -> None:
        """A trial of the comparison."""
        self.spent_s += took_s
        self._pairs.append(took_s)

    def price_s(self, rung: int) -> float:
        """What a trial of a rung will take; 0 before the first trial of all."""
        for known in range(rung, -1, -1):
            if made := self._took.get(known):
                return median_low(made) * (COST[rung] / COST[known])
        return median_low(self._failed) * COST[rung] if self._failed else 0.0

    @property
    def search_s(self) -> float:
        """What the rungs may spend; the rest is the comparison's."""
        wanted_s = MARGIN * self.pairs * 2 * self.price_s(PAIR_RUNG)
        return self.budget_s - min(wanted_s, PAIRS_SHARE * self.budget_s)

    def has_room(self, rung: int, arms: int) -> bool:
        """Whether a rung may go on to so many arms."""
        if rung == 0 and arms == 1:
            return True  # by which all others are judged, in what they give and in what they take
        needed_s = self.price_s(rung)
        if rung == 0 and arms > LEAST_ARMS:
            needed_s += MARGIN * self._rest_s(arms)
        return self.spent_s + needed_s <= self.search_s

    def _rest_s(self, arms: int) -> float:
        """What all rungs after the first take, if that has so many arms."""
        total_s, width = 0.0, arms
        for rung in range(1, len(COST)):
            width = math.ceil(width / KEPT) + BESIDE
            total_s += self.price_s(rung) * width
        return total_s

    def pair_rung(self) -> int:
        """The rung whose length trials of the comparison have, asked when it begins."""
        wanted_s = 2 * min(LEAST_PAIRS, self.pairs) * self.price_s(PAIR_RUNG)
        return PAIR_RUNG if self.spent_s + wanted_s <= self.budget_s else 0

    def has_room_for_pair(self, rung: int) -> bool:
        """Whether the budget has room for one more pair of that length."""
        one_s = median_low(self._pairs) if self._pairs else self.price_s(rung)
        return self.spent_s + 2 * one_s <= self.budget_s
