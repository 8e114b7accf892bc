"""Carries the policy's memory of each model from one decision to the next."""

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
        self._memories[model] = replace(memory, target=target, busy_at_s=at_s)

    def gave_way(self, model: str, engines_left: int) -> None:
        """An idle engine of the model was taken for another model: do not ask for it back."""
        memory = self._memories.get(model)
        if memory is not None:
            kept = tuple((at_s, min(n, engines_left)) for at_s, n in memory.peaks)
            self._memories[model] = replace(
                memory, target=min(memory.target, engines_left), peaks=kept
            )

    def keep_only(self, models: set[str]) -> None:
        """Forgets all other models."""
        for gone in self._memories.keys() - models:
            del self._memories[gone]
