"""All hosts that live, and the engines on them. In memory; monotonic seconds."""

from collections import deque
from collections.abc import Iterator

from serving.controller.observed_engine import Engine
from serving.controller.observed_host import Host
from serving.controller.placement import Life
from serving.protocol import StartPhase

PAST_ENGINES = 100
"""Engines that are gone and remembered, for the sake of their logs."""


class Fleet:
    """All live hosts."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._past: deque[Engine] = deque(maxlen=PAST_ENGINES)

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def __len__(self) -> int:
        return len(self._hosts)

    def find(self, host_id: str) -> Host | None:
        """A live host, or None if it is unknown."""
        return self._hosts.get(host_id)

    def add(self, host: Host) -> None:
        """A host joins."""
        self._hosts[host.host_id] = host

    def drop_silent(self, now_s: float, host_timeout_s: float) -> list[Host]:
        """Takes out and returns the hosts that were silent for too long."""
        lost = [h for h in self if h.is_silent(now_s, host_timeout_s)]
        for host in lost:
            del self._hosts[host.host_id]
            host.changes.wake()
        return lost

    def bound(self, model: str | None = None) -> list[Engine]:
        """The engines that shall run, of one model or of all, by id; a gang's is that of rank 0."""
        engines = [h.engine for h in self if h.engine is not None and not h.engine.is_share]
        engines = [e for e in engines if model is None or e.model == model]
        return sorted(engines, key=lambda engine: engine.engine_id)

    def shares(self) -> list[Engine]:
        """What hosts do for other hosts' engines, by id."""
        engines = [e for h in self for e in (h.engine, h.leaving) if e is not None and e.is_share]
        return sorted(engines, key=lambda engine: engine.engine_id)

    def bound_by_model(self) -> dict[str, list[Engine]]:
        """The engines that shall run, by model and id."""
        found: dict[str, list[Engine]] = {}
        for engine in self.bound():
            found.setdefault(engine.model, []).append(engine)
        return found

    def fetched_s(self, engine: Engine, now_s: float) -> float:
        """When the engine was last seen to wait for its weights: a fetch has no time limit of its
        own, as long as its host reports it."""
        host = self.find(engine.host_id)
        if host is not None and engine.life is Life.STARTING:
            waits = any(
                f.model == engine.model and not f.done and f.total_bytes for f in host.fetches
            )
            forked = StartPhase.FORKED in engine.marks
            if waits and not forked:
                engine.fetched_s = now_s
        return engine.fetched_s

    def dozing(self) -> dict[str, str]:
        """For each model with an engine that sleeps, the host of one of them."""
        return {h.dozing.model: h.host_id for h in self if h.dozing is not None}

    def bury(self, engine: Engine) -> None:
        """Remembers an engine that is not bound any more, for the sake of its log."""
        self._past.append(engine)

    def find_engine(self, engine_id: str) -> Engine | None:
        """An engine that lives, or did so not long ago."""
        for engine in [*self.engines(), *self.shares(), *self._past]:
            if engine.engine_id == engine_id:
                return engine
        return None

    def engines(self) -> list[Engine]:
        """All engines, those that leave too, by id; without the further hosts' parts of gangs."""
        others = [e for h in self for e in (h.leaving, h.dozing) if e is not None]
        others = [e for e in others if not e.is_share]
        return sorted(self.bound() + others, key=lambda engine: engine.engine_id)
