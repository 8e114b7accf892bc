"""Watches the engines at work: ends the requests of one that hangs, keeps a slow one away."""

import asyncio
import time
from collections.abc import Iterable, Set
from typing import Protocol

from serving.gateway.elsewhere import SILENT_S
from serving.gateway.endpoint import Endpoint
from serving.gateway.hang import Hang
from serving.gateway.lane import Lane
from serving.gateway.lanes import Lanes
from serving.gateway.pace import Pace, may_eject, outlier
from serving.logs import get_logger
from serving.protocol import EndpointRoute

LOOK_S = 1.0

SLOW_S = 10.0
"""How long an endpoint that is far slower than the others is kept away."""

log = get_logger(__name__)


class Wires(Protocol):
    """What the watch needs of the client towards the engines."""

    def received(self, engine_id: str) -> int:
        """How often the engine has said anything so far."""
        ...

    async def account(self, route: EndpointRoute) -> str | None:
        """What the engine says of its own work; None if it does not."""
        ...

    def break_off(self, engine_id: str) -> int:
        """Ends the requests that an engine has, as if it had died; returns how many."""
        ...

    def forget(self, known: Set[str]) -> None:
        """Drops what is kept of engines other than these."""
        ...


class Watch:
    """Looks at all engines each LOOK_S: nothing is done for a chunk but to count it."""

    def __init__(self, lanes: Lanes, engines: Wires) -> None:
        self._lanes = lanes
        self._engines = engines
        self._hang = Hang()
        self._suspects: set[str] = set()

    @property
    def suspects(self) -> tuple[str, ...]:
        """Engines that hang and are routed still; the controller is to kill them."""
        return tuple(sorted(self._suspects))

    async def run(self) -> None:
        """Watches until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look(time.monotonic())

    async def look(self, now_s: float) -> None:
        """Looks once."""
        routed: set[str] = set()
        silent: list[tuple[Lane, Endpoint]] = []
        for lane in self._lanes:
            for endpoint in lane.balancer:
                engine_id = endpoint.route.engine_id
                routed.add(engine_id)
                received = self._engines.received(engine_id)
                if self._hang.look(engine_id, received, now_s, busy=endpoint.in_flight > 0):
                    silent.append((lane, endpoint))
            for same in _by_revision(lane):
                self._keep_slow_one_away(lane, same, now_s)
        self._suspects &= routed
        self._hang.keep_only(routed)
        self._engines.forget(routed)
        await asyncio.gather(*(self._ask(lane, endpoint, now_s) for lane, endpoint in silent))

    async def _ask(self, lane: Lane, endpoint: Endpoint, now_s: float) -> None:
        route = endpoint.route
        # Others' servers have no account of their steps, and are not shown our token for one.
        account = None if route.external else await self._engines.account(route)
        excuse_s = SILENT_S if route.external else lane.prefill_excuse_s(endpoint)
        if not self._hang.told(route.engine_id, account, now_s, excuse_s):
            return
        self._suspects.add(route.engine_id)
        lane.eject(endpoint)
        broken = self._engines.break_off(route.engine_id)
        log.error("engine_hangs", engine_id=route.engine_id, model=lane.route.name, requests=broken)
        lane.alarm()

    def _keep_slow_one_away(self, lane: Lane, same: list[Endpoint], now_s: float) -> None:
        endpoints = {one.route.engine_id: one for one in same}
        fit = {name: e.pace for name, e in endpoints.items() if e.breaker.lets_in(now_s)}
        if not may_eject(len(endpoints), len(endpoints) - len(fit)):
            return
        if (slow := outlier(fit)) is None:
            return
        pace = fit[slow]
        log.warning(
            "engine_slow", engine_id=slow, model=lane.route.name,
            ttft_s=round(pace.ttft_s, 3), tpot_s=round(pace.tpot_s, 4),
        )  # fmt: skip
        endpoints[slow].pace = Pace()
        lane.eject(endpoints[slow], SLOW_S)


def _by_revision(lane: Lane) -> Iterable[list[Endpoint]]:
    """The engines that are comparable: a revision that is slower than another one is judged by its
    canary's gate, which has to see its answers for that."""
    revisions: dict[int, list[Endpoint]] = {}
    for endpoint in lane.balancer:
        revisions.setdefault(endpoint.route.revision, []).append(endpoint)
    return revisions.values()
