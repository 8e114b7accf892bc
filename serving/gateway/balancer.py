"""Which engine takes the next request of a model. Pure: time is an argument.

Requests go to the engine with the fewest outstanding ones of this gateway, within its lease.
An endpoint that no lease was granted for yet may be filled up to its slots: a woken engine works
at once, and where several gateways do the same, the engine queues the surplus for the quarter of
a second until the first leases are here. While the controller is away the last leases stay.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from serving.protocol import EndpointRoute


@dataclass(slots=True, eq=False)
class Endpoint:
    """An engine as this gateway sees it."""

    route: EndpointRoute
    lease: int | None = None  # slots; None before the first grant
    in_flight: int = 0
    ejected_until_s: float = 0.0  # monotonic seconds

    @property
    def capacity(self) -> int:
        """Requests that this gateway may have in the engine."""
        return self.route.slots if self.lease is None else self.lease

    def takes_requests(self, now_s: float) -> bool:
        """Whether it may be used at all, full or not."""
        return self.capacity > 0 and now_s >= self.ejected_until_s


class Balancer:
    """The endpoints of one model."""

    def __init__(self) -> None:
        self._routed: dict[str, Endpoint] = {}
        self._leaving: dict[str, Endpoint] = {}  # out of the routes, not yet out of work

    def update(self, routes: Iterable[EndpointRoute]) -> None:
        """Follows the routing table; requests on engines that left it run on."""
        before = self._routed | self._leaving
        self._routed = {}
        for route in routes:
            endpoint = before.pop(route.engine_id, None) or Endpoint(route)
            if endpoint.route != route:
                endpoint.route = route
                endpoint.ejected_until_s = 0.0
            self._routed[route.engine_id] = endpoint
        self._leaving = {name: left for name, left in before.items() if left.in_flight}

    def grant(self, leases: Mapping[str, int]) -> None:
        """Takes leases over; an engine that is missing keeps its last one."""
        for engine_id, endpoint in self._routed.items():
            if engine_id in leases:
                endpoint.lease = max(0, leases[engine_id])

    def choose(self, now_s: float, avoid: Set[str] = frozenset()) -> Endpoint | None:
        """The endpoint for the next request; None if all are full or ejected.

        Args:
            avoid: engine_ids that are taken only if no other is free.
        """
        free = [
            endpoint
            for endpoint in self._routed.values()
            if endpoint.in_flight < endpoint.capacity and now_s >= endpoint.ejected_until_s
        ]
        if not free:
            return None
        return min(free, key=lambda one: (one.route.engine_id in avoid, one.in_flight))

    def can_serve(self, now_s: float) -> bool:
        """Whether any endpoint takes requests, now or as soon as one ends."""
        return any(endpoint.takes_requests(now_s) for endpoint in self._routed.values())

    def has_endpoints(self) -> bool:
        """Whether the routing table names any endpoint."""
        return bool(self._routed)

    def in_flight(self) -> dict[str, int]:
        """Requests that run in each engine, those that left the table included."""
        everyone = self._routed | self._leaving
        return {name: one.in_flight for name, one in everyone.items() if one.in_flight}

    def release(self, endpoint: Endpoint) -> None:
        """One request on the endpoint is over."""
        endpoint.in_flight -= 1
        if not endpoint.in_flight:
            self._leaving.pop(endpoint.route.engine_id, None)
