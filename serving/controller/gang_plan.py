"""Plans with gangs: engines that need several hosts at once, all of them or none. Pure.

The binder is shown a gang as one host of a pool of its own (`cpu*2`): one that runs, or one that
free hosts of the pool could form. Beside its rules there are these:

1. A gang that lacks gets free hosts before models of one host do, unless these have the higher
   priority.
2. Where too few are free, and enough with those that drain, the free ones are kept for it.
3. A gang that is asked for and has no engine takes the hosts of idle engines, of models of no
   higher priority and above their minimum: as many as it needs, or none. In the same way a model
   of one host takes those of an idle gang.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from serving.controller.binder import plan
from serving.controller.placement import Life, Plan, SeenHost, Unbind, UnbindReason, WantedModel


@dataclass(frozen=True, slots=True)
class GangPlan:
    """What to do now, and who runs the engines that are bound along with the host named."""

    plan: Plan
    further: Mapping[str, tuple[str, ...]]
    """Of each gang that may be bound, by the id of its first host: its further hosts."""


def plan_with_gangs(
    models: Sequence[WantedModel],
    hosts: Sequence[SeenHost],
    sizes: Mapping[str, int],
    now_s: float,
) -> GangPlan:
    """The binder's plan, where engines of some models need several hosts.

    Args:
        models: What is wanted.
        hosts: All hosts but those that run a further part of a gang.
        sizes: How many hosts an engine of each model needs, of models that need several.
        now_s: Monotonic seconds.
    """
    if not sizes:
        return GangPlan(plan(models, hosts, now_s), {})
    yard = _Yard(models, hosts, sizes)
    for model in sorted(models, key=lambda m: (-m.priority, m.asked_since_s or now_s, m.name)):
        if model.name in sizes and (model.retry_at_s is None or now_s >= model.retry_at_s):
            yard.gather(model)
    planned = plan(yard.shown_models(), tuple(yard.shown.values()), now_s)
    room = yard.make_room(planned)
    return GangPlan(replace(planned, actions=(*planned.actions, *room)), yard.further)


class _Yard:
    """The hosts, and the gangs that they form."""

    def __init__(
        self,
        models: Sequence[WantedModel],
        hosts: Sequence[SeenHost],
        sizes: Mapping[str, int],
    ) -> None:
        self.models = {model.name: model for model in models}
        self.hosts = hosts
        self.sizes = sizes
        self.further: dict[str, tuple[str, ...]] = {}
        self.shown = {host.host_id: self._as_gang(host) for host in hosts}

    def shown_models(self) -> tuple[WantedModel, ...]:
        """The models, those with gangs in pools of gangs."""
        return tuple(
            replace(m, pool=_gang_pool(m.pool, self.sizes[m.name])) if m.name in self.sizes else m
            for m in self.models.values()
        )

    def gather(self, model: WantedModel) -> None:
        """Puts free hosts together for the engines that the model lacks; rules 1 and 2."""
        size, lacks = self.sizes[model.name], model.target - self._have(model)
        free = self._free(model.pool)[self._claimed_before(model) :]
        while lacks > 0 and len(free) >= size:
            first, *others = free[:size]
            free, lacks = free[size:], lacks - 1
            self.further[first.host_id] = tuple(host.host_id for host in others)
            self.shown[first.host_id] = replace(first, pool=_gang_pool(model.pool, size))
            self._hide(others)
        if lacks > 0 and len(free) + self._draining(model.pool) >= size:
            self._hide(free)

    def make_room(self, planned: Plan) -> list[Unbind]:
        """Who gives way to the models that wait although the binder did what it can; rule 3."""
        gone = {action.host_id for action in planned.actions}
        found: list[Unbind] = []
        for name in sorted(planned.waiting, key=lambda n: (-self.models[n].priority, n)):
            model = self.models[name]
            unasked = model.asked_since_s is None and not model.min
            if model.trial_of or unasked or self._have(model):
                continue
            free = [h for h in self._free(model.pool, self.hosts) if h.host_id not in gone]
            coming = self._draining(model.pool) + self._freed(model.pool, planned)
            lacks = self.sizes.get(name, 1) - len(free) - coming
            taken = self._idle(model, lacks, gone) if lacks > 0 else []
            gone.update(action.host_id for action in taken)
            found.extend(taken)
        return found

    def _idle(self, taker: WantedModel, lacks: int, gone: set[str]) -> list[Unbind]:
        """Idle engines that free at least so many hosts, longest idle first; none if too few."""
        engines = Counter(h.engine.model for h in self.hosts if h.engine is not None)
        taken: list[Unbind] = []
        for host in sorted(self.hosts, key=self._idleness):
            engine = host.engine
            if lacks <= 0:
                break
            if engine is None or host.pool != taker.pool or host.host_id in gone:
                continue
            owner = self.models.get(engine.model)
            if owner is None or owner.idle_s is None or owner.name == taker.name:
                continue
            if owner.priority <= taker.priority and engines[owner.name] > owner.min:
                engines[owner.name] -= 1
                lacks -= self.sizes.get(owner.name, 1)
                why = UnbindReason.GIVES_WAY
                taken.append(Unbind(host.host_id, engine.engine_id, engine.model, why))
        return taken if lacks <= 0 else []

    def _idleness(self, host: SeenHost) -> tuple[float, str]:
        owner = None if host.engine is None else self.models.get(host.engine.model)
        return -((owner and owner.idle_s) or 0.0), host.host_id

    def _as_gang(self, host: SeenHost) -> SeenHost:
        size = None if host.engine is None else self.sizes.get(host.engine.model)
        return host if size is None else replace(host, pool=_gang_pool(host.pool, size))

    def _free(self, pool: str, among: Iterable[SeenHost] | None = None) -> list[SeenHost]:
        """Those that take an engine now, the oldest first; ones with a sleeper last."""
        hosts = self.shown.values() if among is None else among
        free = [h for h in hosts if h.pool == pool and h.engine is None and not h.draining]
        return sorted(free, key=lambda h: (h.dozes is not None, h.since, h.host_id))

    def _draining(self, pool: str) -> int:
        return sum(h.draining for h in self.shown.values() if h.pool == pool)

    def _freed(self, pool: str, planned: Plan) -> int:
        """Hosts of the pool that the plan frees."""
        pools = {host.host_id: host.pool for host in self.hosts}
        return sum(
            self.sizes.get(action.model, 1)
            for action in planned.actions
            if isinstance(action, Unbind) and pools[action.host_id] == pool
        )

    def _have(self, model: WantedModel) -> int:
        engines = [h.engine for h in self.hosts if h.engine is not None]
        return sum(
            e.model == model.name and model.is_current(e) and e.life is not Life.DEAD
            for e in engines
        )

    def _claimed_before(self, model: WantedModel) -> int:
        """Hosts that models of one host and of higher priority lack."""
        return sum(
            max(0, other.target - self._have(other))
            for other in self.models.values()
            if other.pool == model.pool
            and other.priority > model.priority
            and other.name not in self.sizes
        )

    def _hide(self, hosts: Iterable[SeenHost]) -> None:
        for host in hosts:
            del self.shown[host.host_id]


def _gang_pool(pool: str, size: int) -> str:
    """The pool of gangs of a size, for the binder; no pool's own name has a `*`."""
    return f"{pool}*{size}"
