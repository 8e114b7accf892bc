"""How many hosts each pool shall have now: the slow half of the autoscaler at its place.

A pool that PENSTOCK_POOLS_MIN does not name keeps the number of hosts that PENSTOCK_POOLS gives it.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from autoscaler.hosts import (
    PoolDecision,
    PoolMemory,
    PoolSeen,
    PoolSpec,
    Tenure,
    first_memory,
    may_shrink,
    size,
)
from autoscaler.snapshot import Decision
from models.errors import BadRequestError, PenstockError
from models.hardware import PRICE_SHARE, CapacityClass, hardware_named
from serving.controller.events import EventLog
from serving.controller.moment import Moment
from serving.controller.observed_host import Host
from serving.controller.pools import pool_args
from serving.controller.registry import DeployedModel
from serving.settings import ControllerSettings

WARM_UP_S = 5.0
"""After the controller's start, in which all hosts register again; only then they are counted."""
STARTS_KEPT = 20
QUANTILE = 0.9


@dataclass(slots=True)
class _Pool:
    spec: PoolSpec
    memory: PoolMemory | None = None
    last: PoolDecision | None = None
    asked: tuple[float, int] | None = None  # when more hosts were asked for, and how many
    took_s: deque[float] = field(default_factory=lambda: deque(maxlen=STARTS_KEPT))


class PoolSizes:
    """The pools' sizes; `sizes` is what Ray is told, and None for a pool that is not known yet."""

    def __init__(self, settings: ControllerSettings, events: EventLog) -> None:
        self._settings = settings
        self._events = events
        self._pools = {
            pool: _Pool(pool_spec(settings, pool, most))
            for pool, most in settings.pools.items()
            if pool in settings.pools_min
        }
        self.sizes: dict[str, int | None] = {
            pool: None if pool in self._pools else hosts for pool, hosts in settings.pools.items()
        }
        self.on_change: Callable[[], None] = lambda: None
        self._begun_s: float | None = None

    @property
    def least(self) -> int:
        """Hosts that there are in any case, of all pools."""
        return sum(self._settings.pools_min.get(p, n) for p, n in self._settings.pools.items())

    def last(self, pool: str) -> PoolDecision | None:
        """The last decision for a pool; None for one of a fixed size."""
        return self._pools[pool].last if pool in self._pools else None

    def decide(
        self,
        models: Iterable[DeployedModel],
        decisions: Mapping[str, Decision],
        most: Mapping[str, int],
        hosts: Iterable[Host],
        now: Moment,
    ) -> dict[str, int]:
        """Sizes all pools; returns the hosts that models may count on beside those that live.

        Args:
            decisions: The last one for each model.
            most: Engines that each model may have at most.
        """
        if self._begun_s is None:
            self._begun_s = now.s
        by_pool: dict[str, list[Host]] = {}
        for host in hosts:
            by_pool.setdefault(host.pool, []).append(host)
        wanted = Counter[str]()
        for model in models:
            if (decided := decisions.get(model.name)) is not None:
                needed = min(decided.needed, most.get(model.name, 0))
                resources = model.manifest.resources
                wanted[resources.pool] += max(decided.target, needed) * resources.hosts
        growable = {}
        for name, fixed in self._settings.pools.items():
            mine = by_pool.get(name, [])
            pool = self._pools.get(name)
            if pool is None or now.s - self._begun_s < WARM_UP_S:
                growable[name] = max(0, fixed - len(mine))
            else:
                growable[name] = self._decide(name, pool, mine, by_pool, wanted[name], now)
        return growable

    def _decide(
        self,
        name: str,
        pool: _Pool,
        mine: list[Host],
        by_pool: Mapping[str, list[Host]],
        wanted: int,
        now: Moment,
    ) -> int:
        seen = PoolSeen(
            at_s=now.s,
            hosts=len(mine),
            busy=sum(host.engine is not None or host.leaving is not None for host in mine),
            wanted=wanted,
        )
        memory = pool.memory or first_memory(now.s, len(mine))
        spec = replace(pool.spec, node_start_s=self._node_start_s(pool))
        decision, pool.memory = size(seen, memory, spec)
        before, pool.last = self.sizes[name], decision
        target = decision.target
        if before is not None and target < before:
            target = self._step_down(name, before, target, mine, by_pool)
        self._measure(pool, seen, target, before)
        if target != before:
            self.sizes[name] = target
            self._events.record(
                "pool_sized",
                f"pool {name}: {target} hosts ({decision.reason}); {wanted} engines are wanted, "
                f"{seen.busy} of {seen.hosts} hosts work",
            )
            self.on_change()
        return decision.growable

    @staticmethod
    def _step_down(
        name: str, before: int, target: int, mine: list[Host], by_pool: Mapping[str, list[Host]]
    ) -> int:
        """One host less, and not before the last one has gone: Serve chooses whom it stops, and it
        must be an idle one. Hosts that have not come yet are its first choice."""
        if len(mine) < before:
            return max(target, len(mine))
        others = Counter(
            host.registration.node
            for pool, hosts in by_pool.items()
            if pool != name
            for host in hosts
        )
        tenures = [
            Tenure(host.registration.node, host.registered_at, not host.is_free) for host in mine
        ]
        may = len(mine) == before and may_shrink(tenures, dict(others))
        return before - 1 if may else before

    @staticmethod
    def _measure(pool: _Pool, seen: PoolSeen, target: int, before: int | None) -> None:
        """Notes how long hosts that were asked for took to come."""
        if pool.asked is not None and seen.hosts >= pool.asked[1]:
            pool.took_s.append(max(0.0, seen.at_s - pool.asked[0]))
            pool.asked = None
        if before is not None and target > max(before, seen.hosts):
            pool.asked = seen.at_s, target
        elif before is not None and target < before:
            pool.asked = None

    @staticmethod
    def _node_start_s(pool: _Pool) -> float:
        if not pool.took_s:
            return pool.spec.node_start_s
        took = sorted(pool.took_s)
        return took[math.ceil(QUANTILE * len(took)) - 1]


def check_pools(settings: ControllerSettings) -> None:
    """Refuses pools whose names or numbers cannot be.

    Raises:
        BadRequestError: Naming the setting.
    """
    for pool in settings.pools:
        pool_args(pool)
    for pool, least in settings.pools_min.items():
        most = settings.pools.get(pool)
        if most is not None and 0 <= least <= most:
            continue
        wrong = f"{pool!r} is no pool" if most is None else f"{least} is not within 0 and {most}"
        raise BadRequestError(
            f"PENSTOCK_POOLS_MIN: {wrong}",
            param="PENSTOCK_POOLS_MIN",
            hint='as {"h200x8": 1}, with each pool in PENSTOCK_POOLS',
        )


def pool_spec(settings: ControllerSettings, pool: str, most: int) -> PoolSpec:
    """The bounds and costs of a pool that follows its models."""
    return PoolSpec(
        min=min(settings.pools_min[pool], most),
        max=most,
        spare=settings.spare_hosts,
        node_start_s=settings.node_start_s,
        idle_s=settings.host_idle_s,
        price_per_hour=_price(settings, pool),
        wait_price_per_hour=settings.wait_price_per_hour,
    )


def _price(settings: ControllerSettings, pool: str) -> float:
    """List price of a host of the pool for an hour in US dollars; 0 where it is not known."""
    args = pool_args(pool)
    rented = settings.capacity.get(pool)
    share = 1.0 if rented is None else PRICE_SHARE[CapacityClass(rented)]
    try:
        return hardware_named(args["accelerator"]).gpu_hour_usd * max(1, args["gpus"]) * share
    except PenstockError:
        return 0.0
