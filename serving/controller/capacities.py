"""What one engine of each model can do: learned from what engines report, else guessed. In memory;
`scaling_log` keeps a copy in the store.

A capacity belongs to a model, to the revisions that share one engine, and to a pool, because
another engine or another machine is as fast as it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from autoscaler.capacity import Capacity
from autoscaler.learning import Steps, fit
from autoscaler.snapshot import EngineLoad
from models.profile import with_profile
from serving.controller.observed_engine import Engine
from serving.controller.registry import DeployedModel
from serving.protocol import EngineLoadReport

NOTHING = Steps()


@dataclass(frozen=True, slots=True)
class Kind:
    """Engines that are alike."""

    model: str
    revision: int
    """The first one that has this engine; later ones differ in scaling only."""
    pool: str

    @classmethod
    def of(cls, model: DeployedModel) -> "Kind":
        """The current one of a model."""
        return cls(model.name, min(model.same_engine), model.manifest.resources.pool)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one kind of engine."""

    guess: Capacity | None = None
    steps: Steps = NOTHING
    capacity: Capacity | None = None

    @property
    def is_learned(self) -> bool:
        """Whether it was measured, and is no guess."""
        return self.capacity is not None and self.capacity != self.guess


class Capacities:
    """What is known of all kinds of engines."""

    def __init__(self) -> None:
        self._known: dict[Kind, Known] = {}
        self._read: dict[str, Steps] = {}
        self._changed: set[Kind] = set()
        self._guessed: set[Kind] = set()

    def of(self, model: DeployedModel) -> Capacity | None:
        """One engine of the model's current revision; None where nothing is known."""
        return self.known(Kind.of(model)).capacity

    def known(self, kind: Kind) -> Known:
        """All that is known of a kind of engine."""
        return self._known.get(kind, Known())

    def has_guess(self, kind: Kind) -> bool:
        """Whether somebody has already guessed, or tried to."""
        return kind in self._guessed

    def guess(self, kind: Kind, slots: int, capacity: Capacity | None) -> None:
        """Takes a guess that stands until something was measured."""
        self._guessed.add(kind)
        known = replace(self.known(kind), guess=capacity)
        self._known[kind] = replace(known, capacity=fit(known.steps, slots, capacity))

    def restore(self, kind: Kind, steps: Steps, slots: int) -> None:
        """Takes over what an earlier controller learned."""
        known = replace(self.known(kind), steps=steps)
        self._known[kind] = replace(known, capacity=fit(steps, slots, known.guess))

    def observe(self, model: DeployedModel, engine: Engine) -> None:
        """Takes in what an engine of the model told last; each step counts once.

        Engines of older revisions say nothing of the current one.
        """
        told = None if engine.report is None else engine.report.load
        if told is None or not model.has_engine_of(engine.revision):
            return
        reading = _steps(told)
        fresh = reading.since(self._read.get(engine.engine_id, NOTHING))
        self._read[engine.engine_id] = reading
        if fresh is None or fresh == NOTHING:
            return
        kind = Kind.of(model)
        known = self.known(kind)
        steps = known.steps.plus(fresh)
        slots = engine.slots or with_profile(model.manifest).engine.max_num_seqs
        self._known[kind] = replace(known, steps=steps, capacity=fit(steps, slots, known.guess))
        self._changed.add(kind)

    def keep_only(self, engines: Iterable[str]) -> None:
        """Forgets the readings of engines that are gone; what they taught stays."""
        for gone in self._read.keys() - set(engines):
            del self._read[gone]

    def take_changed(self) -> dict[Kind, Known]:
        """What was learned since the last call."""
        changed, self._changed = self._changed, set()
        return {kind: self._known[kind] for kind in changed}

    def put_back(self, kinds: Iterable[Kind]) -> None:
        """Counts kinds as changed again: they could not be stored."""
        self._changed.update(kinds)


def loads_of(engines: Iterable[Engine]) -> tuple[EngineLoad, ...]:
    """What engines run, of those that tell."""
    told = [e.report.load for e in engines if e.report is not None and e.report.load is not None]
    return tuple(EngineLoad(t.running, t.waiting, min(t.kv_use, 1.0)) for t in told)


def _steps(told: EngineLoadReport) -> Steps:
    return Steps(
        decode_steps=told.decode_steps,
        decode_seqs=told.decode_seqs,
        decode_seqs_squared=told.decode_seqs_squared,
        decode_s=told.decode_s,
        decode_seqs_s=told.decode_seqs_s,
        mixed_steps=told.mixed_steps,
        mixed_prompt_tokens=told.mixed_prompt_tokens,
        mixed_seqs=told.mixed_seqs,
        mixed_s=told.mixed_s,
    )
