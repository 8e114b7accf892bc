"""Copies what the autoscaler decides, remembers and learns to the store, and back at the start.

Never waited for: a database that is away loses no decision that memory still keeps, and nobody's
engine.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from autoscaler.snapshot import Memory
from models.profile import with_profile
from serving.background import set_within
from serving.controller import scaling_rows
from serving.controller.capacities import Kind
from serving.controller.database import DatabaseError
from serving.controller.guesses import guess_capacity
from serving.controller.moment import Moment, now
from serving.controller.recorded import Recorded
from serving.controller.registry import DeployedModel, Registry
from serving.controller.store import Store
from serving.controller.targets import Targets
from serving.logs import get_logger

INTERVAL_S = 1.0
"""Between writes of decisions."""
SLOW_INTERVAL_S = 10.0
"""Between writes of memories and capacities, which change all the time."""

log = get_logger(__name__)


class ScalingLog:
    """Keeps the store's copy of the autoscaler's state up to date.

    Args:
        profiles: Folder of measured profiles, which a guess reads before formulas.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        targets: Targets,
        recorded: Recorded,
        clock: Callable[[], Moment] = now,
        profiles: Path | None = None,
    ) -> None:
        self._profiles = profiles
        self._store = store
        self._registry = registry
        self._targets = targets
        self._recorded = recorded
        self._clock = clock
        self._written: dict[str, Memory] = {}
        self._slowly_s = float("-inf")

    async def restore(self) -> None:
        """Begins with what an earlier controller stored.

        Raises:
            DatabaseError: If the database does not answer.
        """
        here = self._clock()
        for model, (at, memory) in (await scaling_rows.read_memories(self._store)).items():
            if self._registry.find(model) is not None:
                passed_s = max(0.0, here.at - at)  # a clock that was set back: no time at all
                self._targets.restore(model, memory.shifted(here.s - passed_s))
        for kind, (slots, steps) in (await scaling_rows.read_capacities(self._store)).items():
            self._targets.capacities.restore(kind, steps, slots)
        for deployed in self._registry.models():
            await self.guess(deployed)

    async def guess(self, model: DeployedModel) -> None:
        """Takes the planner's figures of a model that was deployed, until something is measured."""
        if self._targets.capacities.has_guess(Kind.of(model)):
            return
        manifest = await asyncio.to_thread(with_profile, model.manifest)
        guessed = await asyncio.to_thread(guess_capacity, manifest, self._profiles)
        slots = manifest.engine.max_num_seqs
        self._targets.capacities.guess(Kind.of(model), slots, guessed)

    async def flush(self, *, everything: bool = False) -> None:
        """Stores what is new; memories and capacities only now and then, or with `everything`.

        Raises:
            DatabaseError: If it cannot be stored; it is tried again with the next call.
        """
        here = self._clock()
        for deployed in self._registry.models():
            await self.guess(deployed)
        await self.flush_decisions()
        await self._flush_demand(here, everything)
        if everything or here.s - self._slowly_s >= SLOW_INTERVAL_S:
            self._slowly_s = here.s
            await self._flush_memories(here)
            await self._flush_capacities(here)

    async def run(self, stop: asyncio.Event) -> None:
        """Copies until it is stopped, and once more then."""
        stopped = False
        while not stopped:
            stopped = await set_within(stop, INTERVAL_S)
            try:
                await self.flush(everything=stopped)
            except DatabaseError as exc:
                log.warning("scaling_not_written", error=str(exc))

    async def flush_decisions(self) -> None:
        """Stores the decisions that are new.

        Raises:
            DatabaseError: If they cannot be stored; they are tried again with the next call.
        """
        changes = self._targets.decisions.take_new()
        try:
            await scaling_rows.add_decisions(self._store, changes)
        except BaseException:
            self._targets.decisions.put_back(changes)
            raise

    async def _flush_demand(self, here: Moment, everything: bool) -> None:
        seconds = self._recorded.take_before(here.at + (1.0 if everything else 0.0))
        try:
            await scaling_rows.add_demand(self._store, seconds, here.at)
        except BaseException:
            self._recorded.put_back(seconds)
            raise

    async def _flush_memories(self, here: Moment) -> None:
        memories = {
            model: memory
            for model, memory in self._targets.memories().items()
            if _gist(memory) != _gist(self._written.get(model))
        }
        relative = {model: memory.shifted(-here.s) for model, memory in memories.items()}
        await scaling_rows.put_memories(self._store, relative, here.at)
        self._written |= memories
        deployed = {model.name for model in self._registry.models()}
        if gone := self._written.keys() - deployed:
            await scaling_rows.forget_models(self._store, deployed)
            for model in gone:
                del self._written[model]

    async def _flush_capacities(self, here: Moment) -> None:
        changed = self._targets.capacities.take_changed()
        learned = {
            kind: (known.capacity.slots if known.capacity else 1, known.steps)
            for kind, known in changed.items()
        }
        try:
            await scaling_rows.put_capacities(self._store, learned, here.at)
        except BaseException:
            self._targets.capacities.put_back(changed)
            raise


def _gist(memory: Memory | None) -> Memory | None:
    """A memory without what only fades: a model that nobody asks for is not written again."""
    if memory is None:
        return None
    return replace(
        memory, at_s=None, prefill=(), arrived=0.0, finished=0.0, finished_tokens=0.0, judged=0.0
    )
