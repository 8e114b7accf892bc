"""Successive halving over engine arguments: many short trials, then longer ones of the best. Pure.

K. Jamieson, A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
AISTATS 2016, with a third kept from rung to rung. The defaults are in every rung, whatever they
score; so is, from the second rung on, the combination of all single changes that beat them. The
clock and the runner are arguments; each trial is in the journal before the next one begins, and a
search that starts anew with the same journal goes on where the last one died.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from models.errors import PenstockError
from models.manifest import Goal
from models.profile_measured import Paired
from serving.tuning.scoring import Score, paired, score
from serving.tuning.space import combined
from serving.tuning.trials import Journal, Runner, Settings, Trial, TrialError

ROUNDS = (1, 3, 6)
"""Requests of a visitor in each rung."""
COST = (1.0, 1.6, 2.4)
"""What a trial of each rung takes, over one of the first: starting the engine stays the same."""
KEPT = 3
"""One in so many goes on to the next rung."""
SEARCH_SHARE = 0.5
"""Of the budget, where pairs are to follow."""
LEAST_ARMS = 3
PAIR = "pair"
"""What the keys of trials for the comparison begin with."""
DEFAULTS: Settings = {}


class NoTrialError(PenstockError):
    """Not one trial gave figures."""

    code = "no_trial"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is searched for."""

    goal: Goal
    slo: Mapping[str, float]
    budget_s: float
    pairs: int = 10
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found."""

    best: Settings
    paired: Paired | None
    """The best against the defaults; None where the defaults are the best, or time was out."""
    trials: Sequence[Trial]
    rungs: int
    """Rungs that were finished."""


@dataclass(slots=True)
class Search:
    """One search."""

    wish: Wish
    candidates: Sequence[Settings]
    runner: Runner
    journal: Journal
    clock: Callable[[], float]
    """Monotonic seconds."""
    tell: Callable[[Trial, Score], None] = field(default=lambda _trial, _score: None)

    async def run(self) -> Outcome:
        """Searches until the budget is used up, or nothing is left to try.

        Raises:
            NoTrialError: If no trial gave figures.
        """
        first = await self._trial("0", DEFAULTS, 0)
        arms = [DEFAULTS, *self.candidates[: self._affordable(first.took_s) - 1]]
        best, rungs, unit_s = DEFAULTS, 0, first.took_s
        for rung in range(len(ROUNDS)):
            scored = await self._rung(rung, arms, unit_s)
            if len(scored) < len(arms) and rung > 0:
                break  # the budget ended within it: its trials are not comparable with others
            ranked = sorted(scored, key=lambda found: found[1], reverse=True)
            if ranked[0][1].value <= 0:
                raise NoTrialError(
                    f"none of {len(scored)} trials gave figures; the first: {self._first_failure()}"
                )
            best, rungs = ranked[0][0], rung + 1
            if len(scored) < len(arms):
                break
            arms = self._go_on(scored, ranked, rung)
        compared = await self._compare(best, unit_s) if best else None
        if compared is not None and compared.ratio < 1:
            best, compared = DEFAULTS, None
        return Outcome(best, compared, self.journal.trials(), rungs)

    def _first_failure(self) -> str:
        return next((t.failure for t in self.journal.trials() if t.failure), "unknown")

    @property
    def _searched_s(self) -> float:
        """What the rungs have spent."""
        made = self.journal.trials()
        return sum(trial.took_s for trial in made if not trial.key.startswith(PAIR))

    @property
    def _search_s(self) -> float:
        """What the rungs may spend; the rest is for the pairs."""
        return self.wish.budget_s * (SEARCH_SHARE if self.wish.pairs else 1.0)

    def _affordable(self, unit_s: float) -> int:
        """Arms of the first rung, so that all rungs and the pairs fit the budget."""
        most, room_s = len(self.candidates) + 1, self._search_s
        for arms in range(most, LEAST_ARMS, -1):
            if unit_s * self._cost(arms) <= room_s:
                return arms
        return min(most, LEAST_ARMS)

    def _cost(self, arms: int) -> float:
        """Of all rungs, in trials of the first one."""
        total, width = 0.0, arms
        for cost in COST:
            total += cost * width
            width = math.ceil(width / KEPT) + 2
        return total

    async def _rung(
        self, rung: int, arms: Sequence[Settings], unit_s: float
    ) -> list[tuple[Settings, Score]]:
        scored = []
        for settings in arms:
            key = f"{rung}" if settings == DEFAULTS else f"{rung}-{_digest(settings)}"
            cost_s = unit_s * COST[rung]
            if self.journal.get(key) is None and self._searched_s + cost_s > self._search_s:
                break
            trial = await self._trial(key, settings, rung)
            scored.append((settings, self._score(trial)))
        return scored

    def _go_on(
        self,
        scored: Sequence[tuple[Settings, Score]],
        ranked: Sequence[tuple[Settings, Score]],
        rung: int,
    ) -> list[Settings]:
        """The arms of the next rung: the defaults, the best third, and all that helped together."""
        kept = [settings for settings, _ in ranked[: math.ceil(len(ranked) / KEPT)]]
        if rung == 0:
            floor = next(found for settings, found in scored if settings == DEFAULTS)
            helped = [s for s, found in ranked if len(s) == 1 and found > floor]
            both = combined(helped)
            if len(both) > 1 and both not in kept:
                kept.append(both)
        return [DEFAULTS, *(settings for settings in kept if settings != DEFAULTS)]

    async def _compare(self, best: Settings, unit_s: float) -> Paired | None:
        """Runs of the best and of the defaults in turn; every other pair begins with the latter."""
        values: list[tuple[float, float]] = []
        for number in range(self.wish.pairs):
            names = [("best", best), ("defaults", DEFAULTS)]
            order = names if number % 2 == 0 else names[::-1]
            keys = {name: f"{PAIR}-{_digest(best)}-{number}-{name}" for name, _ in names}
            made = all(self.journal.get(key) is not None for key in keys.values())
            cost_s = 2 * unit_s * COST[1]
            if not made and self.journal.spent_s + cost_s > self.wish.budget_s:
                break
            found = {
                name: self._score(await self._trial(keys[name], settings, 1, number))
                for name, settings in order
            }
            values.append((found["best"].value, found["defaults"].value))
        return paired(values)

    async def _trial(self, key: str, settings: Settings, rung: int, seed: int = 0) -> Trial:
        """A trial by its key: from the journal, or made now and kept."""
        known = self.journal.get(key)
        if known is not None:
            return known
        began_s = self.clock()
        figures, failure = None, None
        try:
            figures = await self.runner.run(settings, ROUNDS[rung], self.wish.seed + seed)
            failure = figures.fault()
        except TrialError as exc:
            failure = str(exc)
        trial = Trial(
            key=key,
            settings=settings,
            rounds=ROUNDS[rung],
            took_s=max(0.0, self.clock() - began_s),
            figures=figures if failure is None else None,
            failure=failure,
        )
        self.journal.add(trial)
        self.tell(trial, self._score(trial))
        return trial

    def _score(self, trial: Trial) -> Score:
        return score(trial.figures, self.wish.goal, self.wish.slo)


def _digest(settings: Settings) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
