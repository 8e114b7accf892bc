"""Which engine takes the next request of a model. Pure: time is an argument.

A request goes to the engine that has likely seen its prompt's beginning (`affinity`), unless that
one has more than BOUND times an equal share of the work lately and of what is to be done: then on
along the ring.
Where it went is remembered, so that the next with this beginning finds it there; it waits there
behind some prompts more than others would, for most of its own need not be computed. On Mooncake's
trace (`make bench-affinity`) the ring alone, each prompt going on where its engine is busy, has
0.53 of a shared cache's hits, with the memory 0.66, with the patience 0.96.
A request whose prompt says nothing goes where the fewest tokens are outstanding. An endpoint that
is new beside others warms up: its share grows to an equal one within WARM_UP_S.

Within leases: an endpoint that no lease was granted for yet may be filled up to its slots, so that
a woken engine works at once; where several gateways do the same, the engine queues the surplus for
the quarter of a second until the first leases are here. While the controller is away the last
leases stay.
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping

from serving.gateway.affinity import Popularity, Ring
from serving.gateway.endpoint import PREFILL_TOKENS, Endpoint
from serving.gateway.tickets import Ticket
from serving.protocol import EndpointRoute

BOUND = 1.2
"""Of the mean work; the paper's c."""

MEMORY_S = 60.0
"""After this time a token sent counts a third (1/e) of one sent now."""

WARM_UP_S = 10.0
COLD_SHARE = 0.2

PATIENCE = 5.0
"""A prompt waits behind so many times its own length where its beginning is known; as measured:
3 -> 0.93, 5 -> 0.96, 9 -> 0.97 of a shared cache's hits; the p99 of TTFT grows by a tenth, the p50
falls to a third."""

HOMES_KEPT = 50_000
"""Beginnings whose engine is remembered: some 5 MB."""

RESCALE_AT = 1e9


class Balancer:
    """The endpoints of one model."""

    def __init__(self, prefill_limit: int = PREFILL_TOKENS) -> None:
        self._prefill_limit = prefill_limit
        self._routed: dict[str, Endpoint] = {}
        self._old: dict[str, Endpoint] = {}
        self._new: dict[str, Endpoint] = {}  # what a canary tries, beside old ones only
        self._leaving: dict[str, Endpoint] = {}  # out of the routes, not yet out of work
        self._ring = Ring()
        self._popularity = Popularity()
        self._homes: OrderedDict[int, str] = OrderedDict()  # engine_id by key, the newest last
        self._unit = 1.0  # what one token sent now adds to `work`: it grows, so that old work fades
        self._unit_s = 0.0

    def __iter__(self) -> Iterator[Endpoint]:
        """The endpoints of the routing table."""
        return iter(list(self._routed.values()))

    def update(
        self, routes: Iterable[EndpointRoute], now_s: float, news: Collection[int] = ()
    ) -> None:
        """Follows the routing table; requests on engines that left it run on.

        Args:
            news: Revisions that a canary tries.
        """
        before = self._routed | self._leaving
        warm_s = now_s if self._routed else now_s - WARM_UP_S  # alone, an engine takes all at once
        mean = self._work() / len(self._routed) if self._routed else 0.0
        self._routed = {}
        for route in routes:
            endpoint = before.pop(route.engine_id, None)
            if endpoint is None:
                endpoint = Endpoint(route, since_s=warm_s, prefill_limit=self._prefill_limit)
                endpoint.work = mean  # it need not catch up with what the others did before
            if endpoint.route != route:
                endpoint.route = route
                endpoint.breaker.reset()
            self._routed[route.engine_id] = endpoint
        self._leaving = {name: left for name, left in before.items() if left.in_flight}
        self._ring = Ring(self._routed)
        self._old, self._new = {}, {}
        for name, one in self._routed.items():
            (self._new if one.route.revision in news else self._old)[name] = one
        if not self._old:  # nothing to compare with: all of them serve everybody
            self._new = {}

    def grant(self, leases: Mapping[str, int]) -> None:
        """Takes leases over; an engine that is missing keeps its last one."""
        for engine_id, endpoint in self._routed.items():
            if engine_id in leases:
                endpoint.lease = max(0, leases[engine_id])

    def choose(self, ticket: Ticket, now_s: float) -> Endpoint | None:
        """The endpoint for the next request; None if none has room for it.

        Those that failed on the request before are taken only if no other has room; so are, by a
        request on trial, those with another that lost its engine: it may be innocent, and a second
        death would end it. Beside a canary nobody goes to the new revision but who tries it; where
        that one has no room, or failed already, these go to the old one.
        """
        if not self._new:
            return self._choose(ticket, now_s, self._routed)
        if ticket.adapter and not self.has(ticket.adapter, self._old):
            return self._choose(ticket, now_s, self._new)
        tries = ticket.tries_new and not ticket.avoid
        if tries and (found := self._choose(ticket, now_s, self._new)) is not None:
            return found
        return self._choose(ticket, now_s, self._old)

    def _choose(
        self, ticket: Ticket, now_s: float, among: Mapping[str, Endpoint]
    ) -> Endpoint | None:
        if len(self._routed) > 1 and ticket.keys:
            if ticket.key is None:
                ticket.key = self._popularity.key_for(ticket.keys, len(self._routed))
            home = self._home(ticket, ticket.key, now_s)
            if home is not None and home.route.engine_id in among:
                return home
        free = [one for one in among.values() if one.has_room(ticket, now_s)]
        if ticket.avoid:
            free = [e for e in free if e.route.engine_id not in ticket.avoid] or free
            if ticket.on_trial:
                free = [e for e in free if not e.has_bereaved] or free
        if len(free) < 2:
            return free[0] if free else None
        if ticket.key is not None and (near := self._near(ticket, ticket.key, free, now_s)):
            return near
        return min(free, key=lambda one: (one.outstanding + 1) / self._share(one, now_s))

    def take(self, endpoint: Endpoint, ticket: Ticket, now_s: float) -> None:
        """The request goes to the endpoint."""
        endpoint.take(ticket)
        endpoint.work += ticket.tokens * self._unit_at(now_s)
        if ticket.key is not None:
            self._homes.pop(ticket.key, None)
            self._homes[ticket.key] = endpoint.route.engine_id
            if len(self._homes) > HOMES_KEPT:
                self._homes.popitem(last=False)

    def release(self, endpoint: Endpoint, ticket: Ticket) -> None:
        """The request is over."""
        endpoint.release(ticket)
        if not endpoint.in_flight:
            self._leaving.pop(endpoint.route.engine_id, None)

    def room(self, now_s: float) -> tuple[int, int]:
        """Free slots and all slots of the endpoints that take requests."""
        free = slots = 0
        for one in self._routed.values():
            if one.takes_requests(now_s):
                capacity = one.capacity
                slots += capacity
                free += max(0, capacity - one.in_flight)
        return free, slots

    def can_serve(self, now_s: float) -> bool:
        """Whether any endpoint takes requests, now or as soon as one ends."""
        return any(endpoint.takes_requests(now_s) for endpoint in self._routed.values())

    def has(self, adapter: str, among: Mapping[str, Endpoint] | None = None) -> bool:
        """Whether any endpoint has the adapter loaded."""
        endpoints = self._routed if among is None else among
        return any(adapter in endpoint.route.adapters for endpoint in endpoints.values())

    def in_flight(self) -> dict[str, int]:
        """Requests that run in each engine, those that left the table included."""
        everyone = self._routed | self._leaving
        return {name: one.in_flight for name, one in everyone.items() if one.in_flight}

    def prefill_tokens(self) -> int:
        """Prompt tokens in engines without a first byte."""
        everyone = self._routed | self._leaving
        return sum(one.prefill_tokens for one in everyone.values())

    def _home(self, ticket: Ticket, key: int, now_s: float) -> Endpoint | None:
        """The endpoint that had the prompt's beginning last, if it takes the request."""
        home = self._routed.get(self._homes.get(key, ""))
        if home is None or home.route.engine_id in ticket.avoid:
            return None
        if ticket.avoid and ticket.on_trial and home.has_bereaved:
            return None
        patience = round(PATIENCE * ticket.prompt_tokens)
        if not home.has_room(ticket, now_s, patience):
            return None
        return home if self._is_within(self._bound(ticket, now_s), home, now_s) else None

    def _near(
        self, ticket: Ticket, key: int, free: Collection[Endpoint], now_s: float
    ) -> Endpoint | None:
        """The free endpoint nearest to the key's place on the ring, within the bound."""
        bound = self._bound(ticket, now_s)
        for engine_id in self._ring.walk(key):
            endpoint = self._routed[engine_id]
            if endpoint in free and self._is_within(bound, endpoint, now_s):
                return endpoint
        return None

    def _bound(self, ticket: Ticket, now_s: float) -> float:
        work = self._work() + ticket.tokens * self._unit_at(now_s)
        return BOUND * work / sum(self._share(one, now_s) for one in self._routed.values())

    def _is_within(self, bound: float, endpoint: Endpoint, now_s: float) -> bool:
        """One that has less to do than its part takes its prompts whatever it did before: nobody
        waits for that."""
        share = self._share(endpoint, now_s)
        if not endpoint.in_flight or endpoint.work <= bound * share:
            return True
        everyone = self._routed.values()
        shares = sum(self._share(one, now_s) for one in everyone)
        return endpoint.outstanding * shares < sum(one.outstanding for one in everyone) * share

    def _share(self, endpoint: Endpoint, now_s: float) -> float:
        age = (now_s - endpoint.since_s) / WARM_UP_S
        return 1.0 if age >= 1.0 else max(COLD_SHARE, age)

    def _work(self) -> float:
        return sum(one.work for one in self._routed.values())

    def _unit_at(self, now_s: float) -> float:
        if now_s > self._unit_s:
            self._unit *= math.exp((now_s - self._unit_s) / MEMORY_S) if self._unit_s else 1.0
            self._unit_s = now_s
            if self._unit > RESCALE_AT:
                for one in self._routed.values():
                    one.work /= self._unit
                self._unit = 1.0
        return self._unit
