"""Successive halving over engine arguments: many short trials, then longer ones of the best. Pure.

K. Jamieson, A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
AISTATS 2016, with a third kept from rung to rung. The defaults are in every rung, whatever they
score; so is, from the second rung on, the combination of all single changes that beat them. `pace`
shares out the budget. The clock and the runner are arguments; each trial is in the journal before
the next one begins, and a search that starts anew with the same journal goes on where the last one
died.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from models.errors import PenstockError
from models.manifest import Goal
from models.profile_measured import Paired
from serving.tuning.pace import KEPT, Pace
from serving.tuning.scoring import Score, paired, score
from serving.tuning.space import combined
from serving.tuning.trials import Journal, Runner, Settings, Trial, TrialError

ROUNDS = (1, 3, 6)
"""Requests of a visitor in each rung."""
LEAST_TO_RANK = 2
"""Arms of a rung that say more than the rung before did: the defaults and another."""
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
    _pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        """Begins with nothing known of what trials take."""
        self._pace = Pace(self.wish.budget_s, self.wish.pairs)

    async def run(self) -> Outcome:
        """Searches until the budget is used up, or nothing is left to try.

        Raises:
            NoTrialError: If no trial gave figures.
        """
        arms: Sequence[Settings] = [DEFAULTS, *self.candidates]
        best, rungs = DEFAULTS, 0
        for rung in range(len(ROUNDS)):
            scored = await self._rung(rung, arms)
            if len(scored) < LEAST_TO_RANK and rung > 0:
                break
            ranked = sorted(scored, key=lambda found: found[1], reverse=True)
            if ranked[0][1].value <= 0 and rung > 0:
                break
            if ranked[0][1].value <= 0:
                raise NoTrialError(
                    f"none of {len(scored)} trials gave figures; the first: {self._first_failure()}"
                )
            best = ranked[0][0]
            if rung > 0 and len(scored) < len(arms):
                break  # the budget ended within it, after the arms that were the best before
            rungs, arms = rung + 1, self._go_on(scored, ranked, rung)
        compared = await self._compare(best) if best else None
        if compared is not None and compared.ratio < 1:
            best, compared = DEFAULTS, None
        return Outcome(best, compared, self.journal.trials(), rungs)

    def _first_failure(self) -> str:
        return next((t.failure for t in self.journal.trials() if t.failure), "unknown")

    async def _rung(self, rung: int, arms: Sequence[Settings]) -> list[tuple[Settings, Score]]:
        """As many of the arms, in order, as the budget has room for; the defaults are the first."""
        scored: list[tuple[Settings, Score]] = []
        for settings in arms:
            key = f"{rung}" if settings == DEFAULTS else f"{rung}-{_digest(settings)}"
            if self.journal.get(key) is None and not self._pace.has_room(rung, len(scored) + 1):
                break
            trial = await self._trial(key, settings, rung)
            self._pace.note(rung, trial.took_s, gave_figures=trial.figures is not None)
            scored.append((settings, self._score(trial)))
        return scored

    def _go_on(
        self,
        scored: Sequence[tuple[Settings, Score]],
        ranked: Sequence[tuple[Settings, Score]],
        rung: int,
    ) -> list[Settings]:
        """The arms of the next rung: the defaults, all that helped together, the best third."""
        kept = [settings for settings, _ in ranked[: math.ceil(len(ranked) / KEPT)]]
        if rung == 0:
            floor = next(found for settings, found in scored if settings == DEFAULTS)
            helped = [s for s, found in ranked if len(s) == 1 and found > floor]
            both = combined(helped)
            if len(both) > 1 and both not in kept:
                kept.insert(0, both)
        return [DEFAULTS, *(settings for settings in kept if settings != DEFAULTS)]

    async def _compare(self, best: Settings) -> Paired | None:
        """Runs of the best and of the defaults in turn; every other pair begins with the latter."""
        values: list[tuple[float, float]] = []
        rung = self._pace.pair_rung()
        for number in range(self.wish.pairs):
            names = [("best", best), ("defaults", DEFAULTS)]
            order = names if number % 2 == 0 else names[::-1]
            keys = {name: f"{PAIR}-{_digest(best)}-{rung}-{number}-{name}" for name, _ in names}
            is_begun = any(self.journal.get(key) is not None for key in keys.values())
            if not is_begun and not self._pace.has_room_for_pair(rung):
                break
            found: dict[str, Score] = {}
            for name, settings in order:
                trial = await self._trial(keys[name], settings, rung, number)
                self._pace.note_pair(trial.took_s)
                found[name] = self._score(trial)
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
