"""The line of requests that wait for a slot of one model. Pure: time is an argument.

Bounded in requests and tokens. The classes of service share by weight, and within each the tenants
do (`fair_queue`). A flex request that has waited for FLEX_AGES_S becomes a default one, so that
flex ends up served whatever else comes. Requests that lost their engine go first: they were served
their turn before. Those on trial, an engine having died while it had them, wait apart: the engines
take one of them at a time, and nobody else waits for that.

Where the line is full, a tenant that holds less of it than an equal share gets in all the same: the
newest request of the tenant that holds most is sent away in its place.
"""

from collections import Counter, OrderedDict
from collections.abc import Set
from typing import Generic, TypeVar

from models.errors import QueueFullError
from serving.gateway.drain import Drain
from serving.gateway.fair_queue import FairQueue, VirtualCounters
from serving.gateway.tickets import Ticket, Tier

FLEX_AGES_S = 20.0

TIER_WEIGHTS = {Tier.PRIORITY: 16.0, Tier.DEFAULT: 4.0, Tier.FLEX: 1.0}
"""Shares of the tokens where all classes wait."""

LEAST_FIRST = (Tier.FLEX, Tier.DEFAULT, Tier.PRIORITY)

TicketT = TypeVar("TicketT", bound=Ticket)


class WaitingLine(Generic[TicketT]):
    """Who waits, and whose turn it is; each step takes O(log tenants)."""

    def __init__(self, max_queued: int, max_tokens: int) -> None:
        self._max_queued = max_queued
        self._max_tokens = max_tokens
        self._queues: dict[Tier, FairQueue[str, TicketT]] = {tier: FairQueue() for tier in Tier}
        self._tiers: VirtualCounters[Tier] = VirtualCounters()
        self._back: OrderedDict[TicketT, None] = OrderedDict()
        self._trials: OrderedDict[TicketT, None] = OrderedDict()
        self._by_age: OrderedDict[TicketT, None] = OrderedDict()
        self._flex_by_age: OrderedDict[TicketT, None] = OrderedDict()
        self._held: dict[str, float] = {}  # share of the line, by tenant
        self._counts: Counter[str] = Counter()  # who waits, by tenant
        self.tokens = 0
        self.prompt_tokens = 0
        self.drain = Drain()

    def __len__(self) -> int:
        return len(self._by_age)

    @property
    def is_clear(self) -> bool:
        """Whether a request that comes now would be the next; those on trial are no obstacle."""
        return len(self._by_age) == len(self._trials)

    def waiting_of(self, tenant: str) -> int:
        """How many of the tenant's requests wait."""
        return self._counts[tenant]

    def join(self, ticket: TicketT, now_s: float) -> list[TicketT]:
        """Takes a place; returns those who are sent away for it.

        Raises:
            QueueFullError: If no more requests may wait, with the time in which the line drains.
        """
        gone = self._make_room(ticket, now_s)
        self._note(ticket)
        self._enqueue(ticket)
        if ticket.tier is Tier.FLEX:
            self._flex_by_age[ticket] = None
        return gone

    def rejoin(self, ticket: TicketT) -> None:
        """Takes the first place, or the last among those on trial, full or not: the request was
        let in before."""
        self._note(ticket)
        self._by_age.move_to_end(ticket, last=False)
        line = self._trials if ticket.on_trial else self._back
        line[ticket] = None

    def leave(self, ticket: TicketT) -> None:
        """Gives the place up; nothing happens if it was given up before."""
        if ticket not in self._by_age:
            return
        del self._by_age[ticket]
        self.tokens -= ticket.tokens
        self.prompt_tokens -= ticket.prompt_tokens
        self._counts[ticket.tenant] -= 1
        self._held[ticket.tenant] -= self._share(ticket)
        if not self._counts[ticket.tenant]:
            del self._held[ticket.tenant], self._counts[ticket.tenant]
        for line in (self._back, self._trials, self._flex_by_age):
            line.pop(ticket, None)
        self._dequeue(ticket)

    def first(self, now_s: float, without: Set[str] = frozenset()) -> TicketT | None:
        """Whose turn it is, those on trial aside; `without` names tenants that are passed over."""
        for back in self._back:
            if back.tenant not in without:
                return back
        self._age(now_s)
        empty: set[Tier] = set()
        while (tier := self._tiers.least(empty)) is not None:
            if (ticket := self._queues[tier].first(without)) is not None:
                return ticket
            empty.add(tier)
        return None

    def had_its_turn(self, ticket: TicketT) -> bool:
        """Whether the request is back, having lost its engine."""
        return ticket in self._back

    def first_on_trial(self) -> TicketT | None:
        """Whose turn it is among those on trial."""
        return next(iter(self._trials), None)

    def oldest(self) -> TicketT | None:
        """Who came first."""
        return next(iter(self._by_age), None)

    def oldest_wait_s(self, now_s: float) -> float:
        """How long the one who came first has been here; 0 if nobody waits."""
        head = self.oldest()
        return max(0.0, now_s - head.arrived_s) if head else 0.0

    def by_tier(self, now_s: float) -> dict[Tier, tuple[int, float]]:
        """How many wait in each class, and how long the one of them that came first; O(line)."""
        seen = dict.fromkeys(Tier, (0, 0.0))
        for ticket in self._by_age:
            number, wait_s = seen[ticket.tier]
            seen[ticket.tier] = (number + 1, max(wait_s, now_s - ticket.arrived_s))
        return seen

    def served(self, ticket: TicketT, now_s: float) -> None:
        """The request goes to an engine, out of the line or past it, and is charged for."""
        self.drain.note(ticket.tokens, now_s)
        counters, tier = self._queues[ticket.tier].counters, ticket.tier
        counters.serve(ticket.tenant, ticket.tokens, ticket.weight)
        self._tiers.serve(tier, ticket.tokens, TIER_WEIGHTS[tier])
        self.leave(ticket)

    def charge(self, ticket: TicketT, tokens: int) -> None:
        """The request took so much more than was charged for it, or less where negative."""
        self._queues[ticket.tier].counters.charge(ticket.tenant, tokens, ticket.weight)
        self._tiers.charge(ticket.tier, tokens, TIER_WEIGHTS[ticket.tier])

    def waiting_for(self, adapters: Set[str]) -> list[TicketT]:
        """Those who want one of these adapters."""
        return [ticket for ticket in self._by_age if ticket.adapter in adapters]

    def clear(self) -> list[TicketT]:
        """Sends everybody away and says who they were."""
        gone = list(self._by_age)
        for ticket in gone:
            self.leave(ticket)
        return gone

    def retry_after_s(self, now_s: float) -> float:
        """When there is room again, at the speed at which the line drains."""
        return self.drain.seconds_for(self.tokens, now_s)

    def _note(self, ticket: TicketT) -> None:
        self._by_age[ticket] = None
        self.tokens += ticket.tokens
        self.prompt_tokens += ticket.prompt_tokens
        self._counts[ticket.tenant] += 1
        self._held[ticket.tenant] = self._held.get(ticket.tenant, 0.0) + self._share(ticket)

    def _enqueue(self, ticket: TicketT) -> None:
        self._queues[ticket.tier].join(ticket.tenant, ticket)
        self._tiers.begin(ticket.tier)

    def _dequeue(self, ticket: TicketT) -> None:
        queue = self._queues[ticket.tier]
        if queue.leave(ticket.tenant, ticket) and not queue:
            self._tiers.end(ticket.tier)

    def _age(self, now_s: float) -> None:
        while self._flex_by_age:
            oldest = next(iter(self._flex_by_age))
            if now_s - oldest.arrived_s < FLEX_AGES_S:
                return
            del self._flex_by_age[oldest]
            self._dequeue(oldest)
            oldest.tier = Tier.DEFAULT
            self._enqueue(oldest)

    def _share(self, ticket: TicketT) -> float:
        """Of the line, in requests and tokens alike."""
        return 1 / self._max_queued + ticket.tokens / self._max_tokens

    def _is_full(self, requests: int, tokens: int) -> bool:
        over_tokens = tokens > self._max_tokens and requests > 1
        return requests > self._max_queued or over_tokens

    def _make_room(self, ticket: TicketT, now_s: float) -> list[TicketT]:
        requests, tokens = len(self) + 1, self.tokens + ticket.tokens
        if not self._is_full(requests, tokens):
            return []
        mine = self._held.get(ticket.tenant, 0.0) + self._share(ticket)
        if mine * len(self._held) <= sum(self._held.values()):
            # Only here, for a tenant below an equal share, the tenants are looked through.
            most = max(self._held, key=self._held.__getitem__)
            left, gone = self._held[most], []
            for victim in self._newest_of(most):
                left -= self._share(victim)
                if left < mine:
                    break
                gone.append(victim)
                requests, tokens = requests - 1, tokens - victim.tokens
                if not self._is_full(requests, tokens):
                    for one in gone:
                        self.leave(one)
                    return gone
        raise self.full(now_s)

    def full(self, now_s: float) -> QueueFullError:
        """The error for a request that may not wait."""
        return QueueFullError(
            f"{len(self)} requests wait for this model already",
            retry_after_s=self.retry_after_s(now_s),
        )

    def _newest_of(self, tenant: str) -> list[TicketT]:
        return [t for tier in LEAST_FIRST for t in self._queues[tier].newest_of(tenant)]
