"""Decides how many hosts a pool shall have, for the engines that models want on them. Pure.

The slow half of the autoscaler: a host is a node of a cluster, or a part of one, and takes minutes
to come. *Up*, at once, to what the models want and a few spare ones, so that the next engine finds
its host. *Down*, late: an idle host is kept for as long as keeping it costs what its return would
(the break-even rule of ski rental, at most twice the best in hindsight; Karlin, Manasse, Rudolph
and Sleator, "Competitive snoopy caching", Algorithmica 1988): its price while a node starts, and
what it is worth that nobody waits for it. A host that works is never let go.

Hosts that were asked for and do not come are an input too: models are told that there is no room
for more, and the pool goes on asking.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

LATE = 2.0
"""Node starts after which a host that was asked for counts as one that cannot be had."""
NOT_SOONER_S = 10.0


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool's bounds, and what its hosts cost."""

    min: int
    max: int
    spare: int = 0  # free hosts beside those that engines are wanted for
    node_start_s: float = 120.0  # until a host that was asked for is there
    idle_s: float = 600.0  # an idle host goes after this time at the latest
    price_per_hour: float = 0.0  # of a host
    wait_price_per_hour: float = 60.0  # what it is worth that nobody waits for a host

    def hold_s(self) -> float:
        """How long an idle host is kept."""
        if self.price_per_hour <= 0:
            return self.idle_s
        even_s = self.node_start_s * (1.0 + self.wait_price_per_hour / self.price_per_hour)
        return min(self.idle_s, even_s)


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """A pool at one moment."""

    at_s: float  # monotonic seconds
    hosts: int  # that live
    busy: int  # of them those with an engine, one that drains too
    wanted: int  # engines that models want here, whether they have them or not


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What is carried from one decision to the next."""

    target: int
    peaks: tuple[tuple[float, int], ...] = ()  # (at_s, needed), falling
    lacks_since_s: float | None = None  # hosts that were asked for are not there


class PoolReason(StrEnum):
    """Why a pool shall have so many hosts."""

    BOUNDS = "bounds"  # the settings ask for it
    ENGINES = "engines"  # models want them
    HOLD = "hold"  # fewer would do, but more were needed not long ago
    FULL = "full"  # models want more than the pool may have
    SHORT = "short"  # hosts were asked for and do not come


@dataclass(frozen=True, slots=True)
class PoolDecision:
    """How many hosts the pool shall have, and why."""

    target: int
    reason: PoolReason
    needed: int
    hold_s: float
    growable: int  # hosts that models may count on beside those that live


def first_memory(at_s: float, hosts: int) -> PoolMemory:
    """What is there when one begins to look is kept for a while."""
    return PoolMemory(hosts, ((at_s, hosts),))


def size(seen: PoolSeen, memory: PoolMemory, spec: PoolSpec) -> tuple[PoolDecision, PoolMemory]:
    """The pool's number of hosts, and what to remember for the next decision."""
    hold_s = spec.hold_s()
    wanted = max(0, seen.wanted)
    needed = max(wanted + spec.spare if wanted else 0, seen.busy)
    peaks = [
        (min(at_s, seen.at_s), n)  # a clock that was set back keeps nothing alive
        for at_s, n in memory.peaks
        if n > needed and seen.at_s - at_s < hold_s
    ]
    peaks.append((seen.at_s, needed))
    held = max(n for _, n in peaks)
    most = max(spec.max, 0)
    target = min(max(held, spec.min), most)
    reason = PoolReason.ENGINES if held == needed else PoolReason.HOLD
    if held < spec.min or held == 0:
        reason = PoolReason.BOUNDS
    elif needed > most:
        reason = PoolReason.FULL
    lacks_since_s = memory.lacks_since_s if target > seen.hosts else None
    if target > seen.hosts and lacks_since_s is None:
        lacks_since_s = seen.at_s
    late_s = LATE * max(spec.node_start_s, NOT_SOONER_S)
    short = lacks_since_s is not None and seen.at_s - lacks_since_s >= late_s
    decision = PoolDecision(
        target,
        PoolReason.SHORT if short else reason,
        needed,
        hold_s,
        growable=0 if short else max(0, most - seen.hosts),
    )
    return decision, replace(memory, target=target, peaks=tuple(peaks), lacks_since_s=lacks_since_s)


@dataclass(frozen=True, slots=True)
class Tenure:
    """A host of the pool: on which node, since when, and whether an engine is on it."""

    node: str
    since: float
    busy: bool


def may_shrink(hosts: list[Tenure], others_on: dict[str, int]) -> bool:
    """Whether the host that Ray Serve would stop next is idle for certain.

    Serve takes the newest replica of the node with the fewest replicas, its head node last
    (`serve/_private/deployment_scheduler.py`, `_get_replicas_to_stop`, Ray 2.60). Which node is the
    head is not known here: so the newest host has to be idle on the emptiest nodes, and on the next
    emptiest ones too.

    Args:
        others_on: Replicas of other pools on each node.
    """
    newest: dict[str, Tenure] = {}
    count: dict[str, int] = dict(others_on)
    for host in hosts:
        count[host.node] = count.get(host.node, 0) + 1
        if host.node not in newest or host.since > newest[host.node].since:
            newest[host.node] = host
    levels = sorted({count[node] for node in newest})[:2]
    return bool(newest) and all(
        not host.busy for node, host in newest.items() if count[node] in levels
    )
