"""Keeps the last changes of each model's target, with the numbers behind them. In memory;
`scaling_log` copies them to the store."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.snapshot import Decision, Snapshot

KEPT = 100
"""Changes that are kept for each model."""
PENDING_MAX = 10_000
"""Changes that wait for the store; beyond it the oldest are lost."""


@dataclass(frozen=True, slots=True)
class TargetChange:
    """The autoscaler changed its mind about one model."""

    at: float  # Unix seconds
    before: int
    decision: Decision
    seen: Snapshot


class Decisions:
    """The last changes of all models' targets."""

    def __init__(self) -> None:
        self._by_model: dict[str, deque[TargetChange]] = {}
        self._new: list[tuple[str, TargetChange]] = []

    def of(self, model: str) -> list[TargetChange]:
        """The model's changes that are kept, oldest first."""
        return list(self._by_model.get(model, ()))

    def note(
        self, model: str, at: float, before: int | None, decision: Decision, seen: Snapshot
    ) -> None:
        """Keeps a decision where it changed the target; the first one counts as a change from 0."""
        if decision.target != (before or 0):
            change = TargetChange(at, before or 0, decision, seen)
            self._by_model.setdefault(model, deque(maxlen=KEPT)).append(change)
            self.put_back([(model, change)], at_the_end=True)

    def take_new(self) -> list[tuple[str, TargetChange]]:
        """The changes since the last call, oldest first."""
        new, self._new = self._new, []
        return new

    def put_back(
        self, changes: Sequence[tuple[str, TargetChange]], *, at_the_end: bool = False
    ) -> None:
        """Counts changes as new again: they could not be stored."""
        both = [*self._new, *changes] if at_the_end else [*changes, *self._new]
        self._new = both[-PENDING_MAX:]

    def keep_only(self, models: set[str]) -> None:
        """Forgets all other models."""
        for gone in self._by_model.keys() - models:
            del self._by_model[gone]
