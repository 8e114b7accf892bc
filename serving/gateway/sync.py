"""Keeps the gateway in step with the controller, and lives without it for as long as it must."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from models.errors import UnreachableError
from serving.background import set_within
from serving.gateway.auth import Keyring
from serving.gateway.demand import make_report, take_back
from serving.gateway.keepsake import Keepsake
from serving.gateway.lanes import Lanes
from serving.gateway.watch import Watch
from serving.logs import get_logger
from serving.protocol import (
    DEMAND_INTERVAL_S,
    DemandReply,
    DemandReport,
    IdentitiesDelta,
    RoutesDelta,
)

FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0

NOTHING = 0
"""A version that no table has: the first poll always brings everything."""

ROUTES = "routes"
IDENTITIES = "identities"

log = get_logger(__name__)


class Versioned(Protocol):
    """What all deltas have in common."""

    @property
    def version(self) -> int:
        """The version that the caller has after it took the delta over."""
        ...


DeltaT = TypeVar("DeltaT", bound=Versioned)


class Link(Protocol):
    """The controller, as the gateway sees it."""

    async def routes(self, after: int) -> RoutesDelta:
        """Long poll for routes."""
        ...

    async def identities(self, after: int) -> IdentitiesDelta:
        """Long poll for keys."""
        ...

    async def demand(self, report: DemandReport) -> DemandReply:
        """Reports demand."""
        ...


class Sync:
    """The three conversations with the controller, and the watch over the engines, of which the
    controller is told; as tasks that run until they are cancelled."""

    def __init__(
        self,
        link: Link,
        lanes: Lanes,
        keyring: Keyring,
        keepsake: Keepsake,
        urgent: asyncio.Event,
        watch: Watch,
    ) -> None:
        self.gateway_id = f"gw-{uuid.uuid4().hex[:12]}"
        self._link = link
        self._lanes = lanes
        self._keyring = keyring
        self._keepsake = keepsake
        self._urgent = urgent  # set by a lane: report now, not at the next interval
        self._watch = watch
        self._away = False

    def recall(self) -> None:
        """Takes over what the last process knew."""
        if (routes := self._keepsake.load(ROUTES, RoutesDelta)) is not None:
            self._lanes.apply(routes)
        if (identities := self._keepsake.load(IDENTITIES, IdentitiesDelta)) is not None:
            self._keyring.apply(identities)

    async def run(self) -> None:
        """Keeps in step until it is cancelled; a crash of ours is logged and begun anew."""
        while True:
            try:
                await self._converse()
            except* Exception:
                log.exception("sync_crashed", gateway_id=self.gateway_id)
            await asyncio.sleep(MAX_BACKOFF_S)

    async def _converse(self) -> None:
        async with asyncio.TaskGroup() as conversations:
            conversations.create_task(self._follow(self._link.routes, self._take_routes))
            conversations.create_task(self._follow(self._link.identities, self._take_identities))
            conversations.create_task(self._report())
            conversations.create_task(self._watch.run())

    async def _follow(
        self,
        poll: Callable[[int], Awaitable[DeltaT]],
        take: Callable[[DeltaT], Awaitable[None]],
    ) -> None:
        version = NOTHING
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                delta = await poll(version)
            except UnreachableError as exc:
                self._note_absence(exc)
                await asyncio.sleep(backoff_s)
                backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)
                continue
            self._note_presence()
            backoff_s = FIRST_BACKOFF_S
            if delta.version == version:
                await asyncio.sleep(FIRST_BACKOFF_S)  # a peer that does not wait must not spin us
                continue
            version = delta.version
            await take(delta)

    async def _take_routes(self, delta: RoutesDelta) -> None:
        self._lanes.apply(delta)
        await asyncio.to_thread(self._keepsake.save, ROUTES, self._lanes.snapshot())

    async def _take_identities(self, delta: IdentitiesDelta) -> None:
        self._keyring.apply(delta)
        await asyncio.to_thread(self._keepsake.save, IDENTITIES, self._keyring.snapshot())

    async def _report(self) -> None:
        while True:
            self._urgent.clear()
            now_s = time.monotonic()
            report = make_report(self.gateway_id, self._lanes, now_s, self._watch.suspects)
            try:
                reply = await self._link.demand(report)
            except UnreachableError as exc:
                self._note_absence(exc)
                take_back(report, self._lanes)
                await asyncio.sleep(DEMAND_INTERVAL_S)
                continue
            self._lanes.grant(reply.leases)
            for known_as in reply.quarantined:
                self._lanes.quarantine.add(known_as, time.monotonic())
            self._lanes.verdicts.note(reply.killed)
            self._lanes.forget_idle_retired()
            await set_within(self._urgent, DEMAND_INTERVAL_S)

    def _note_absence(self, exc: UnreachableError) -> None:
        if not self._away:
            self._away = True
            log.warning("controller_away", reason=str(exc), hint=exc.hint)

    def _note_presence(self) -> None:
        if self._away:
            self._away = False
            log.info("controller_back")
