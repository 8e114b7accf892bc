"""A lane for each model: grants slots of its engines to requests, and lets the others wait."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from models.errors import (
    DeadlineError,
    ModelFailedError,
    ModelNotFoundError,
    PenstockError,
    UnavailableError,
)
from serving.gateway.balancer import Balancer, Endpoint
from serving.gateway.queue import Ticket, WaitingLine
from serving.protocol import FirstToken, ModelRoute, ModelState, RoutesDelta

EJECTED_S = 1.5
"""An endpoint that could not be reached, or broke off, is tried again after this time, unless a
change of its route brings it back earlier."""

DEADLINE_RETRY_AFTER_S = 5.0

NAMED_KEPT = 16
"""Requests of a model, named as the cause of a start, whose first token is waited for."""

Alarm = Callable[[], None]


@dataclass(slots=True, eq=False)
class Place(Ticket):
    """A ticket and the slot it waits for."""

    granted: asyncio.Future[Endpoint] | None = field(default=None)


class Lane:
    """One model: its route, its engines, and who waits for them."""

    def __init__(self, route: ModelRoute, max_queued: int, alarm: Alarm) -> None:
        self.route = route
        self.line: WaitingLine[Place] = WaitingLine(max_queued)
        self.balancer = Balancer()
        self.arrivals = 0
        self.retired = False
        self.reported = False  # whether the last demand report spoke of this model
        self.named: deque[str] = deque(maxlen=NAMED_KEPT)  # start_ids told to the controller
        self.first_tokens: list[FirstToken] = []  # to be told with the next report
        self._alarm = alarm
        self.balancer.update(route.endpoints)

    @asynccontextmanager
    async def slot(self, place: Place, *, again: bool = False) -> AsyncIterator[Endpoint]:
        """Room for one request in an engine, for as long as the block runs.

        Args:
            again: The request had a slot before, and waits at the head of the line.

        Raises:
            QueueFullError: If too many requests wait already.
            DeadlineError: If the place's deadline passes first.
            ModelFailedError: If the model's engines do not start.
            ModelNotFoundError: If the model is deleted meanwhile.
        """
        endpoint = await self._take(place, again)
        try:
            yield endpoint
        finally:
            self.balancer.release(endpoint)
            self.pump()

    def update(self, route: ModelRoute) -> None:
        """Follows the routing table."""
        self.route = route
        self.retired = False
        self.balancer.update(route.endpoints)
        if self.failed:
            self._send_away(self._failure)
        self.pump()

    def retire(self) -> None:
        """The model is deleted: nobody new comes in, those who wait are sent away."""
        self.retired = True
        self.balancer.update(())
        self._send_away(lambda: not_found(self.route.name))

    def eject(self, endpoint: Endpoint, for_s: float = EJECTED_S) -> None:
        """Keeps requests from an endpoint for a while."""
        endpoint.ejected_until_s = time.monotonic() + for_s
        asyncio.get_running_loop().call_later(for_s, self.pump)

    def note_first_token(self, start_id: str, engine_id: str, at: float, after_s: float) -> None:
        """The first byte of an answer is here; told at once where it ends a cold start."""
        if start_id in self.named:
            self.named.remove(start_id)
            token = FirstToken(start_id=start_id, engine_id=engine_id, at=at, after_s=after_s)
            self.first_tokens.append(token)
            self._alarm()

    def pump(self) -> None:
        """Grants free slots in the order of the line."""
        now_s = time.monotonic()
        while (place := self.line.first()) is not None:
            endpoint = self.balancer.choose(now_s, place.avoid)
            if endpoint is None:
                return
            self.line.leave(place)
            if place.granted is not None and not place.granted.done():
                endpoint.in_flight += 1
                place.granted.set_result(endpoint)

    @property
    def failed(self) -> bool:
        """Whether nothing can serve the model until an operator has looked."""
        return self.route.state is ModelState.FAILED and not self.route.endpoints

    async def _take(self, place: Place, again: bool) -> Endpoint:
        now_s = time.monotonic()
        if self.retired:
            raise not_found(self.route.name)
        if self.failed:
            raise self._failure()
        if not self.line or again:
            endpoint = self.balancer.choose(now_s, place.avoid)
            if endpoint is not None:
                endpoint.in_flight += 1
                return endpoint
        place.granted = asyncio.get_running_loop().create_future()
        if again:
            self.line.rejoin(place)
        else:
            self.line.join(place)
        if len(self.line) == 1 and not self.balancer.can_serve(now_s):
            self._alarm()
        return await self._wait(place, place.granted)

    async def _wait(self, place: Place, granted: asyncio.Future[Endpoint]) -> Endpoint:
        try:
            async with asyncio.timeout(place.deadline_s - time.monotonic()):
                return await granted
        except TimeoutError:
            self._give_up(place, granted)
            waited_s = time.monotonic() - place.arrived_s
            raise DeadlineError(
                f"no engine of {self.route.name} was free within {waited_s:.0f} s",
                retry_after_s=DEADLINE_RETRY_AFTER_S,
            ) from None
        except BaseException:
            self._give_up(place, granted)
            raise

    def _give_up(self, place: Place, granted: asyncio.Future[Endpoint]) -> None:
        """Frees the place, and the slot too where it was granted in the same moment."""
        self.line.leave(place)
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            self.balancer.release(granted.result())
            self.pump()

    def _send_away(self, error: Callable[[], PenstockError]) -> None:
        for place in self.line.clear():
            if place.granted is not None and not place.granted.done():
                place.granted.set_exception(error())

    def _failure(self) -> ModelFailedError:
        reason = self.route.reason or "its engine does not start"
        return ModelFailedError(f"{self.route.name} has failed: {reason}")


class Lanes:
    """All models of the routing table, each with its lane."""

    def __init__(self, max_queued: int, alarm: Alarm) -> None:
        self._max_queued = max_queued
        self._alarm = alarm
        self._lanes: dict[str, Lane] = {}
        self.version = 0
        self.loaded = False

    def __iter__(self) -> Iterator[Lane]:
        """All lanes, those of deleted models that still have work included."""
        return iter(list(self._lanes.values()))

    def get(self, model: str) -> Lane:
        """The lane of a model, awake or not.

        Raises:
            ModelNotFoundError: If it is not deployed.
            UnavailableError: If no routing table is there yet.
        """
        if not self.loaded:
            raise UnavailableError("the gateway is starting and knows no models yet")
        lane = self._lanes.get(model)
        if lane is None or lane.retired:
            raise not_found(model)
        return lane

    def routes(self) -> list[ModelRoute]:
        """The models that are deployed, by name."""
        live = (lane.route for lane in self._lanes.values() if not lane.retired)
        return sorted(live, key=lambda route: route.name)

    def apply(self, delta: RoutesDelta) -> None:
        """Takes over a change of the routing table."""
        named = {route.name for route in delta.models}
        gone = set(self._lanes) - named if delta.full else set(delta.removed) - named
        for name in gone & set(self._lanes):
            self._lanes[name].retire()
        for route in delta.models:
            if (lane := self._lanes.get(route.name)) is not None:
                lane.update(route)
            else:
                self._lanes[route.name] = Lane(route, self._max_queued, self._alarm)
        self.version = delta.version
        self.loaded = self.loaded or delta.full

    def grant(self, leases: dict[str, int]) -> None:
        """Takes over slot leases, and uses them at once."""
        for lane in self._lanes.values():
            lane.balancer.grant(leases)
            lane.pump()

    def forget_idle_retired(self) -> None:
        """Drops lanes of deleted models whose last request is over."""
        for name, lane in list(self._lanes.items()):
            if lane.retired and not lane.balancer.in_flight():
                del self._lanes[name]

    def snapshot(self) -> RoutesDelta:
        """The whole table, as it is kept on disk."""
        return RoutesDelta(version=self.version, full=True, models=tuple(self.routes()))


def not_found(model: str) -> ModelNotFoundError:
    """The error for a model that is not deployed."""
    shown = model if len(model) <= 200 else model[:200] + "..."
    return ModelNotFoundError(f"the model {shown!r} does not exist", param="model")
