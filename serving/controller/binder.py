"""Plans which host runs which engine, from what is wanted and what is seen. Pure.

The rules, in the order in which they apply:

1. A dead engine and an engine of a deleted model are unbound.
2. A model with more engines than wanted gives up those with the least in flight.
3. A model with fewer gets free hosts: those below their minimum first, then models with no engine,
   then the rest. Within these: the higher priority, those that ask before those that nobody asks
   for, the one with the smallest part of its target, then the oldest demand. After a failed start
   the model waits for its retry time, and avoids the host.
4. A new revision starts beside the old one where a host is free, and the old one goes as the new
   one gets ready. Where none is free, one old engine at a time goes first, or the new one waits,
   as the model says (`replaces`).
5. A model that is asked for and finds no host takes one from another model, never below that one's
   minimum: an idle engine, where it has none itself, or where the other has been idle for
   LONG_IDLE_S and is of no higher priority; an engine of a model of lower priority, the lowest
   first; and, where it has none itself, an engine of a model of its own priority that has two or
   more, the one with most. Idle means that nobody waits or runs anywhere in that model; of several
   idle ones, the model that had no request for the longest time gives way. A trial of a new
   revision takes idle engines of other models only.

A host that drains, or lost its engine in this very plan, counts as one that is coming: no second
engine is moved for the same need.
"""

from collections import Counter
from collections.abc import Sequence

from serving.controller.placement import (
    Bind,
    Life,
    Plan,
    SeenEngine,
    SeenHost,
    Unbind,
    UnbindReason,
    WantedModel,
)

LONG_IDLE_S = 10.0
"""A model that nobody asks for this long gives way to one that wants a further engine."""


def plan(models: Sequence[WantedModel], hosts: Sequence[SeenHost], now_s: float) -> Plan:
    """The fewest moves that bring the hosts nearer to what is wanted; none where all is well."""
    board = _Board(models, hosts, now_s)
    board.unbind_lost_causes()
    for model in board.models.values():
        board.unbind_surplus(model)
    waiting = board.bind_free_hosts()
    for model in waiting:
        if not board.make_room_within(model):
            board.make_room_elsewhere(model)
    return Plan(tuple(board.actions), frozenset(model.name for model in waiting))


class _Board:
    """The hosts as they are going to be, and the actions that make them so."""

    def __init__(
        self, models: Sequence[WantedModel], hosts: Sequence[SeenHost], now_s: float
    ) -> None:
        self.models = {model.name: model for model in sorted(models, key=lambda m: m.name)}
        self.now_s = now_s
        self.actions: list[Unbind | Bind] = []
        self.bound: dict[str, SeenEngine] = {}
        self.hosts_of: dict[str, list[str]] = {}
        self.pool_of = {host.host_id: host.pool for host in hosts}
        self.since_of = {host.host_id: host.since for host in hosts}
        self.dozes_on = {host.host_id: host.dozes for host in hosts if host.dozes is not None}
        self.free = sorted(h.host_id for h in hosts if h.engine is None and not h.draining)
        self.coming = Counter(host.pool for host in hosts if host.draining)
        self.started: Counter[str] = Counter()
        for host in sorted(hosts, key=lambda h: h.host_id):
            if host.engine is not None:
                self.bound[host.host_id] = host.engine
                self.hosts_of.setdefault(host.engine.model, []).append(host.host_id)

    def engines(self, model: WantedModel, *, current: bool) -> list[tuple[str, SeenEngine]]:
        return [
            (host_id, self.bound[host_id])
            for host_id in self.hosts_of.get(model.name, [])
            if model.is_current(self.bound[host_id]) is current
        ]

    def have(self, model: WantedModel) -> int:
        return len(self.engines(model, current=True)) + self.started[model.name]

    def unbind(self, host_id: str, reason: UnbindReason) -> None:
        engine = self.bound.pop(host_id)
        self.hosts_of[engine.model].remove(host_id)
        self.actions.append(Unbind(host_id, engine.engine_id, engine.model, reason))
        self.coming[self.pool_of[host_id]] += 1

    def unbind_lost_causes(self) -> None:
        for host_id, engine in list(self.bound.items()):
            if engine.life is Life.DEAD:
                self.unbind(host_id, UnbindReason.DEAD)
            elif engine.model not in self.models:
                self.unbind(host_id, UnbindReason.DELETED)

    def unbind_surplus(self, model: WantedModel) -> None:
        current = self.engines(model, current=True)
        current.sort(key=_cost_of_loss)
        for host_id, _ in current[: max(0, len(current) - model.target)]:
            self.unbind(host_id, UnbindReason.SURPLUS)
        ready = sum(e.life is Life.READY for _, e in self.engines(model, current=True))
        old = self.engines(model, current=False)
        old.sort(key=_cost_of_loss)
        for host_id, _ in old[: max(0, len(old) - max(0, model.target - ready))]:
            self.unbind(host_id, UnbindReason.OLD_REVISION)

    def bind_free_hosts(self) -> list[WantedModel]:
        """Gives free hosts away; returns the models that asked in vain, the neediest first."""
        waiting: list[WantedModel] = []
        lacking = [m for m in self.models.values() if self.may_start(m)]
        while lacking:
            model = min(lacking, key=self._need)
            host_id = self._free_host(model)
            if host_id is None:
                waiting.append(model)
                lacking.remove(model)
                continue
            self.free.remove(host_id)
            self.started[model.name] += 1
            self.actions.append(Bind(host_id, model.name, model.revision))
            if self.have(model) >= model.target:
                lacking.remove(model)
        return waiting

    def may_start(self, model: WantedModel) -> bool:
        rested = model.retry_at_s is None or self.now_s >= model.retry_at_s
        return rested and self.have(model) < model.target

    def _need(self, model: WantedModel) -> tuple[int, int, bool, float, float, str]:
        have = self.have(model)
        urgency = 0 if have < model.min else 1 if have == 0 else 2
        since = self.now_s if model.asked_since_s is None else model.asked_since_s
        part = have / max(1, model.target)
        return urgency, -model.priority, model.idle_s is not None, part, since, model.name

    def _free_host(self, model: WantedModel) -> str | None:
        fitting = [host_id for host_id in self.free if self.pool_of[host_id] == model.pool]
        return min(
            fitting,
            key=lambda host_id: (
                host_id in model.avoid,
                self._disturbs(model, host_id),
                self.since_of[host_id],
                host_id,
            ),
            default=None,
        )

    def _disturbs(self, model: WantedModel, host_id: str) -> int:
        """0: a sleeper of the model wakes there; 1: nobody sleeps there; 2: another's has to go."""
        if (dozes := self.dozes_on.get(host_id)) is None:
            return 1
        name, revision = dozes
        same = revision == model.revision or revision in model.same_engine
        return 0 if name == model.name and same else 2

    def make_room_within(self, model: WantedModel) -> bool:
        """One old engine goes first, unless a host is coming or a new engine is on its way."""
        if self._host_is_coming(model):
            return True
        old = [
            item
            for item in self.engines(model, current=False)
            if self.pool_of[item[0]] == model.pool
        ]
        starting = [e for _, e in self.engines(model, current=True) if e.life is Life.STARTING]
        if not old or not model.replaces:
            return False
        if not starting and not self.started[model.name]:
            self.unbind(min(old, key=_cost_of_loss)[0], UnbindReason.OLD_REVISION)
            self._host_is_coming(model)
        return True

    def make_room_elsewhere(self, model: WantedModel) -> None:
        """An engine of another model gives way; see rule 5."""
        if not model.trial_of and model.asked_since_s is None and self.have(model) >= model.min:
            return
        candidates = [
            (rank, host_id)
            for host_id, engine in self.bound.items()
            if self.pool_of[host_id] == model.pool
            and engine.model not in (model.name, model.trial_of)
            if (rank := self._ease_of_taking(model, host_id, engine)) is not None
        ]
        if candidates:
            self.unbind(min(candidates)[1], UnbindReason.GIVES_WAY)
            self._host_is_coming(model)

    def _ease_of_taking(
        self, taker: WantedModel, host_id: str, engine: SeenEngine
    ) -> tuple[int, float, float, tuple[int, bool, float, str]] | None:
        """How easily the engine is taken, the least the easiest; None: not for this model."""
        owner = self.models[engine.model]
        engines = len(self.hosts_of[owner.name])
        if engines <= owner.min:
            return None
        cost = _cost_of_loss((host_id, engine))
        has_none = self.have(taker) == 0
        if taker.trial_of and owner.idle_s is None:
            return None
        if owner.idle_s is not None and (
            has_none or (owner.idle_s >= LONG_IDLE_S and owner.priority <= taker.priority)
        ):
            return 0, -owner.idle_s, 0.0, cost
        if owner.priority < taker.priority:
            return 1, owner.priority, -engines, cost
        if has_none and owner.priority == taker.priority and engines > 1:
            return 2, -engines, 0.0, cost
        return None

    def _host_is_coming(self, model: WantedModel) -> bool:
        """Reserves one of the pool's draining hosts for the model, where there is one left."""
        if self.coming[model.pool] <= 0:
            return False
        self.coming[model.pool] -= 1
        return True


def _cost_of_loss(item: tuple[str, SeenEngine]) -> tuple[int, bool, float, str]:
    """Least in flight first, those that only start before ready ones, the youngest, the name."""
    host_id, engine = item
    return engine.in_flight, engine.life is Life.READY, -engine.bound_s, host_id
