"""Who goes to which engine, and when: the line, the slots kept free, and the balancer. Pure."""

from collections.abc import Iterator
from typing import Generic

from serving.gateway.balancer import Balancer
from serving.gateway.endpoint import Endpoint
from serving.gateway.headroom import Headroom
from serving.gateway.queue import TicketT, WaitingLine
from serving.gateway.tickets import Ticket

PASSED_OVER_MAX = 8
"""Tenants that are passed over, for the slots kept free or because their prompts fill their part
of the engines, before the line waits."""


class Desk(Generic[TicketT]):
    """Grants the slots of one model; monotonic seconds."""

    def __init__(self, line: WaitingLine[TicketT], balancer: Balancer) -> None:
        self.line = line
        self.balancer = balancer
        self.headroom = Headroom()

    def come(self, ticket: TicketT, now_s: float) -> Endpoint | None:
        """The endpoint of a new request that need not wait; None where it must."""
        free, slots = self.balancer.room(now_s)
        self.headroom.came(ticket.tenant, ticket.weight, free, slots, now_s)
        if not self.line.is_clear or not self.headroom.may_take(ticket.tenant, free, slots):
            return None
        return self._send(ticket, now_s)

    def come_again(self, ticket: TicketT, now_s: float) -> Endpoint | None:
        """As `come`, of one that had its turn before."""
        return self._send(ticket, now_s)

    def grants(self, now_s: float) -> Iterator[tuple[TicketT, Endpoint]]:
        """Those whose turn it is and who have room; each is sent when it is given."""
        while (ticket := self.line.first_on_trial()) is not None:
            if (endpoint := self._send(ticket, now_s)) is None:
                break
            yield ticket, endpoint
        passed_over: set[str] = set()
        while len(passed_over) <= PASSED_OVER_MAX:
            ticket = self.line.first(now_s, passed_over)
            if ticket is None:
                return
            free, slots = self.balancer.room(now_s)
            may_take = self.headroom.may_take(ticket.tenant, free, slots)
            if not may_take and not self.line.had_its_turn(ticket):
                passed_over.add(ticket.tenant)
            elif (endpoint := self._send(ticket, now_s)) is not None:
                yield ticket, endpoint
            elif self._has_its_share(ticket, now_s):
                passed_over.add(ticket.tenant)
            else:
                return

    def release(self, ticket: TicketT, endpoint: Endpoint, tokens: int, now_s: float) -> None:
        """A request is over, and took so many tokens."""
        self.balancer.release(endpoint, ticket)
        self.headroom.gave_back(ticket.tenant, now_s)
        self.line.charge(ticket, tokens - ticket.tokens)

    def _send(self, ticket: TicketT, now_s: float) -> Endpoint | None:
        waiting = self.line.waiting_of(ticket.tenant)
        share = self.headroom.prefill_share(ticket.tenant, waiting, len(self.line))
        ticket.prefill_share = share
        endpoint = self.balancer.choose(ticket, now_s)
        if endpoint is None:
            return None
        self.line.served(ticket, now_s)
        self.balancer.take(endpoint, ticket, now_s)
        self.headroom.took(ticket.tenant, ticket.weight, now_s)
        return endpoint

    def _has_its_share(self, ticket: TicketT, now_s: float) -> bool:
        """Whether each engine holds as many of the tenant's prompts as it may: that is no reason
        for others to wait."""
        if ticket.prefill_share >= 1.0:
            return False
        fit = [one for one in self.balancer if one.takes_requests(now_s)]
        return bool(fit) and all(_is_filled(one, ticket) for one in fit)


def _is_filled(endpoint: Endpoint, ticket: Ticket) -> bool:
    own = endpoint.prefill_of.get(ticket.tenant, 0)
    limit = endpoint.prefill_limit * ticket.prefill_share
    return own > 0 and own + ticket.prompt_tokens > limit
