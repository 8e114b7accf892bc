"""Keeps the last changes of each model's target, with the numbers behind them. In memory."""

from collections import deque
from dataclasses import dataclass

from autoscaler.snapshot import Decision, Snapshot

KEPT = 100
"""Changes that are kept for each model."""


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

    def keep_only(self, models: set[str]) -> None:
        """Forgets all other models."""
        for gone in self._by_model.keys() - models:
            del self._by_model[gone]
