"""Gangs: engines that several hosts run together. Bound all at once, ended as one.

The binder knows engines of one host. It is shown a gang as one host of a pool of its own
(`gang_plan`); here is what becomes of the further hosts: each gets a part of the engine along with
the first one, keeps it while the first one drains, and loses it with it. A part that ends, or whose
host is lost, ends the whole engine; the binder then starts it anew, as any other.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence

from serving.controller.fleet import Fleet
from serving.controller.observed_engine import Engine
from serving.controller.observed_host import Host
from serving.controller.placement import Life, SeenHost
from serving.protocol import GangPlace

PORTS = range(20000, 30000)
"""Of the rendezvous of a gang's hosts: below the ports that Linux gives away by itself."""


class Gangs:
    """Keeps the gangs of a fleet whole, or ends them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def complete(self, first: str, further: Sequence[str]) -> None:
        """Gives the further hosts their parts of the engine that was just bound to the first."""
        leader = self._fleet.find(first)
        hosts = [self._fleet.find(host_id) for host_id in further]
        if leader is None or leader.engine is None or not hosts:
            return
        engine = leader.engine
        engine.gang = GangPlace(
            leader=engine.engine_id,
            rank=0,
            size=len(hosts) + 1,
            address=leader.registration.address,
            port=self._free_port(),
        )
        for rank, host in enumerate(hosts, start=1):
            if host is not None:  # else the gang is not whole, and ends at once
                host.assign(_part(engine, engine.gang, rank, host))

    def keep(self) -> None:
        """Ends gangs that are not whole any more, and parts whose engine is gone."""
        bound = {e.engine_id: e for e in self._fleet.bound() if e.gang is not None}
        parts = [e for host in self._fleet if (e := host.engine) is not None and e.is_share]
        for engine in bound.values():
            if engine.life is not Life.DEAD:
                mine = [part for part in parts if part.served_by == engine.engine_id]
                engine.broken = _what_broke(engine, mine)
        draining = {
            e.engine_id for h in self._fleet if (e := h.leaving) is not None and not e.broken
        }
        for host in self._fleet:
            part = host.engine
            if part is not None and part.is_share and part.served_by not in {*bound, *draining}:
                host.assign(None)

    def seen(self, in_flight: Mapping[str, int]) -> Iterator[SeenHost]:
        """The hosts as the plan takes them; those of a gang's further parts only once it is over.

        A host on its way out is none that is coming; what it still runs counts until it is gone.
        """
        bound = {engine.engine_id for engine in self._fleet.bound()}
        for host in self._fleet:
            engine = host.engine
            if engine is not None and engine.is_share:
                if engine.served_by not in bound:
                    yield SeenHost(host.host_id, host.pool, draining=True)
            elif engine is not None or not host.is_leaving:
                yield host.seen(in_flight)

    def _free_port(self) -> int:
        taken = {e.gang.port for e in self._fleet.engines() if e.gang is not None}
        return secrets.choice([port for port in PORTS if port not in taken])


def _part(engine: Engine, place: GangPlace, rank: int, host: Host) -> Engine:
    return Engine(
        engine_id=f"{engine.engine_id}-{rank}",
        model=engine.model,
        revision=engine.revision,
        start_id=engine.start_id,
        manifest=engine.manifest,
        host_id=host.host_id,
        node=host.registration.node,
        bound_s=engine.bound_s,
        started_at=engine.started_at,
        gang=place.model_copy(update={"rank": rank}),
    )


def _what_broke(engine: Engine, parts: Sequence[Engine]) -> str:
    """Why the engine cannot go on; empty while its gang is whole."""
    for part in parts:
        if part.life is Life.DEAD:
            return f"its part on {part.host_id} ended: {part.error or 'it was stopped'}"
    wanted = 0 if engine.gang is None else engine.gang.size - 1
    missing = wanted - len(parts)
    return f"{missing} of its {wanted + 1} hosts went away" if missing > 0 else ""
