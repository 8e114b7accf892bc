"""Carries the policy's memory of each model from one decision to the next."""

from collections.abc import Mapping
from dataclasses import replace

from autoscaler.policy import decide, first_memory
from autoscaler.snapshot import Decision, Memory, Snapshot, Spec


class Autoscaler:
    """The policy for many models; time comes with each snapshot, so that it can be simulated."""

    def __init__(self) -> None:
        self._memories: dict[str, Memory] = {}

    def decide(self, model: str, seen: Snapshot, spec: Spec) -> Decision:
        """The target of one model, remembered for the next call."""
        memory = self._memories.get(model) or first_memory(seen.at_s, spec)
        decision, self._memories[model] = decide(seen, memory, spec)
        return decision

    def found_running(self, model: str, engines: int, at_s: float) -> None:
        """Engines turned out to run already: they are kept, and their idle time starts now."""
        memory = self._memories.get(model) or Memory(target=0, busy_at_s=at_s)
        target = max(engines, memory.target)
        peaks = (*(peak for peak in memory.peaks if peak[1] > target), (at_s, target))
        self._memories[model] = replace(memory, target=target, busy_at_s=at_s, peaks=peaks)

    def gave_way(self, model: str, engines_left: int) -> None:
        """An idle engine of the model was taken for another model: do not ask for it back."""
        memory = self._memories.get(model)
        if memory is not None:
            kept = tuple((at_s, min(n, engines_left)) for at_s, n in memory.peaks)
            self._memories[model] = replace(
                memory, target=min(memory.target, engines_left), peaks=kept
            )

    def target_of(self, model: str) -> int | None:
        """The target that was decided last, or found; None of a model that is unknown."""
        memory = self._memories.get(model)
        return None if memory is None else memory.target

    def memories(self) -> Mapping[str, Memory]:
        """What is remembered of each model."""
        return self._memories

    def restore(self, model: str, memory: Memory) -> None:
        """Takes over what an earlier process remembered, on this process's clock."""
        self._memories[model] = memory

    def keep_only(self, models: set[str]) -> None:
        """Forgets all other models."""
        for gone in self._memories.keys() - models:
            del self._memories[gone]
