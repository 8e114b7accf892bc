"""Makes the policy's snapshot of one model out of what gateways, hosts and starts tell. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.capacity import Capacity
from autoscaler.snapshot import Snapshot, Spec
from serving.controller.capacities import loads_of
from serving.controller.demand import Demand
from serving.controller.moment import Moment
from serving.controller.observed_engine import Engine
from serving.controller.observed_host import Host
from serving.controller.placement import Life
from serving.controller.registry import DeployedModel
from serving.controller.traces import Trace
from serving.protocol import StartPhase

STARTS_READ = 20
"""The newest starts of which the cold start is a quantile."""
QUANTILE = 0.9


def look(
    engines: Iterable[Engine],
    draining: int,
    asked: Demand | None,
    room: int | None,
    start_s: float,
    capacity: Capacity | None,
    now: Moment,
) -> Snapshot:
    """One model now; `asked` is None where no gateway lives to tell.

    Args:
        engines: Those that are bound.
        draining: Those that are not bound any more, and not gone yet.
        room: Further engines that hosts could take; None where that is not known.
    """
    engines = list(engines)
    lives = [engine.life for engine in engines]
    ready, starting = lives.count(Life.READY), lives.count(Life.STARTING)
    loads = loads_of(e for e, life in zip(engines, lives, strict=True) if life is Life.READY)
    if asked is None:
        return Snapshot(
            now.s, ready, starting, None, None, draining=draining, available=room,
            cold_start_s=start_s, capacity=capacity, engines=loads,
        )  # fmt: skip
    counts, since_s = asked.counts, asked.asked_since_s
    return Snapshot(
        at_s=now.s,
        ready=ready,
        starting=starting,
        queued=asked.queued,
        in_flight=asked.in_flight,
        arrivals=counts.arrivals,
        arrived_tokens=counts.arrived_tokens,
        queued_tokens=asked.queued_tokens,
        prefill_tokens=asked.prefill_tokens,
        oldest_wait_s=0.0 if since_s is None else max(0.0, now.s - since_s),
        finished=counts.finished,
        finished_tokens=counts.finished_tokens,
        missed=counts.missed,
        draining=draining,
        available=room,
        cold_start_s=start_s,
        capacity=capacity,
        engines=loads,
    )


def spec_of(model: DeployedModel, at: float) -> Spec:
    """The promises of a model's manifest, with the bounds of this hour (Unix seconds)."""
    scaling = model.manifest.scaling
    lowest, highest = scaling.bounds_at(at)
    return Spec(
        min=lowest,
        max=highest,
        idle_timeout_s=scaling.idle_timeout_s,
        ttft_s=scaling.slo.ttft_s,
        tpot_s=scaling.slo.tpot_s,
        attainment=scaling.slo.attainment,
        headroom=scaling.headroom,
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """What a model holds of its pool."""

    pool: str
    priority: int
    spare: int  # engines above its minimum
    hosts: int = 1  # of each engine


def rooms(
    claims: Mapping[str, Claim], free: Mapping[str, int], growable: Mapping[str, int]
) -> dict[str, int]:
    """Further engines of each model that hosts could take: free ones, ones that the pool may grow
    by, and those that the binder would take from models of lower priority."""
    spare: dict[str, Counter[int]] = {}
    for claim in claims.values():
        spare.setdefault(claim.pool, Counter())[claim.priority] += claim.spare * claim.hosts
    below = {
        (pool, priority): sum(n for other, n in by_priority.items() if other < priority)
        for pool, by_priority in spare.items()
        for priority in by_priority
    }
    return {
        name: (
            free.get(claim.pool, 0)
            + growable.get(claim.pool, 0)
            + below[claim.pool, claim.priority]
        )
        // claim.hosts
        for name, claim in claims.items()
    }


def count_free(hosts: Iterable[Host]) -> Counter[str]:
    """Hosts of each pool that take an engine now, or as soon as they have drained."""
    return Counter(host.pool for host in hosts if host.engine is None and not host.is_leaving)


def count_draining(hosts: Iterable[Host]) -> Counter[str]:
    """Engines of each model that drain."""
    return Counter(host.leaving.model for host in hosts if host.leaving is not None)


def cold_start_s(starts: Sequence[Trace], otherwise_s: float) -> float:
    """A high quantile of how long the newest starts took; `otherwise_s` where none was measured."""
    took = [s for trace in starts[-STARTS_READ:] if (s := took_s(trace)) is not None]
    if not took:
        return otherwise_s
    took.sort()
    return took[math.ceil(QUANTILE * len(took)) - 1]


def took_s(trace: Trace) -> float | None:
    """What a start took from its host to its route; None if it got nowhere.

    The wait for a host is none of it: whether one can be had is an input of its own.
    """
    bound_at, routed_at = trace.marks.get(StartPhase.BOUND), trace.marks.get(StartPhase.ROUTED)
    if bound_at is None or routed_at is None or not routed_at > bound_at:
        return None
    return routed_at - bound_at
