"""One engine as a gateway sees it: what it holds, and whether it takes more. Pure."""

from dataclasses import dataclass, field

from serving.gateway.breaker import Breaker
from serving.gateway.pace import Pace
from serving.gateway.tickets import Ticket
from serving.protocol import EndpointRoute

PREFILL_TOKENS = 8192
"""Prompt tokens that an engine may hold without a first byte: what exceeds them waits in the line,
where the order is fair. That is what one of vLLM's steps computes at most, by default on a GPU."""

KV_LOOK_AHEAD = 1.125
"""Of the KV cache so much is promised: estimates run high, and the engine's own queue is short."""


@dataclass(slots=True, eq=False)
class Load:
    """One request's part of what an endpoint holds."""

    ticket: Ticket
    is_prefilling: bool = True
    is_on_trial: bool = False


@dataclass(slots=True, eq=False)
class Endpoint:
    """An engine, its lease, and what this gateway has in it."""

    route: EndpointRoute
    since_s: float = 0.0  # monotonic; when it was first routed here
    lease: int | None = None  # slots; None before the first grant
    prefill_limit: int = PREFILL_TOKENS
    breaker: Breaker = field(default_factory=Breaker)
    pace: Pace = field(default_factory=Pace)
    loads: dict[Ticket, Load] = field(default_factory=dict)
    kv_tokens: int = 0  # that its requests will have in the KV cache at most, as estimated
    output_tokens: int = 0  # expected outputs of its requests
    prefill_tokens: int = 0  # prompts without a first byte
    prefill_of: dict[str, int] = field(default_factory=dict)  # of these, by tenant
    trials: int = 0  # requests on trial without a first byte
    work: float = 0.0  # tokens sent to it, in the balancer's own ageing unit

    @property
    def outstanding(self) -> int:
        """Tokens that are still to be computed, as estimated."""
        return self.prefill_tokens + self.output_tokens

    @property
    def in_flight(self) -> int:
        """Requests that run."""
        return len(self.loads)

    @property
    def capacity(self) -> int:
        """Requests that this gateway may have in the engine."""
        return self.route.slots if self.lease is None else self.lease

    @property
    def kv_limit(self) -> float:
        """Tokens that this gateway may have in the engine: its lease's part of the KV cache."""
        if not self.route.kv_tokens:
            return float("inf")
        share = min(1.0, self.capacity / max(1, self.route.slots))
        return self.route.kv_tokens * share * KV_LOOK_AHEAD

    @property
    def has_bereaved(self) -> bool:
        """Whether it holds a request that an engine died with before; O(requests)."""
        return any(ticket.on_trial for ticket in self.loads)

    def takes_requests(self, now_s: float) -> bool:
        """Whether it may be used at all, full or not."""
        return self.capacity > 0 and self.breaker.lets_in(now_s)

    def has_room(self, ticket: Ticket, now_s: float, patience_tokens: int = 0) -> bool:
        """Whether it takes this request now; one that is alone in it always fits.

        Args:
            patience_tokens: Prompt tokens beyond the limit behind which the request may wait.
        """
        if self.in_flight >= self.capacity or not self.breaker.lets_in(now_s):
            return False
        if ticket.on_trial and self.trials:
            return False
        if ticket.adapter and ticket.adapter not in self.route.adapters:
            return False
        if not self._has_room_to_prefill(ticket, patience_tokens):
            return False
        return not self.loads or self.kv_tokens + ticket.tokens <= self.kv_limit

    def _has_room_to_prefill(self, ticket: Ticket, patience_tokens: int) -> bool:
        """One prompt always passes. A tenant among others has its part of the limit, or one prompt
        if that is longer; with these the limit may be passed once over, so that nobody finds it
        filled by another."""
        if not self.prefill_tokens:
            return True
        limit = self.prefill_limit + patience_tokens
        if ticket.prefill_share >= 1.0:
            return self.prefill_tokens + ticket.prompt_tokens <= limit
        own = self.prefill_of.get(ticket.tenant, 0)
        if own and own + ticket.prompt_tokens > limit * ticket.prefill_share:
            return False
        return self.prefill_tokens + ticket.prompt_tokens <= 2 * limit

    def take(self, ticket: Ticket) -> None:
        """The request is sent to it."""
        self.loads[ticket] = Load(ticket, is_on_trial=ticket.on_trial)
        self.kv_tokens += ticket.tokens
        self.output_tokens += ticket.output_tokens
        self.prefill_tokens += ticket.prompt_tokens
        own = self.prefill_of.get(ticket.tenant, 0)
        self.prefill_of[ticket.tenant] = own + ticket.prompt_tokens
        self.trials += ticket.on_trial
        self.breaker.sent()

    def prefilled(self, ticket: Ticket) -> None:
        """The request's prompt is computed; no effect if that was known, or it is over."""
        load = self.loads.get(ticket)
        if load is None or not load.is_prefilling:
            return
        load.is_prefilling = False
        self.prefill_tokens -= ticket.prompt_tokens
        own = self.prefill_of.pop(ticket.tenant, 0) - ticket.prompt_tokens
        if own > 0:
            self.prefill_of[ticket.tenant] = own

    def acquit(self, ticket: Ticket) -> None:
        """The engine lived through the request's beginning; the next on trial may come."""
        load = self.loads.get(ticket)
        if load is not None and load.is_on_trial:
            load.is_on_trial = False
            self.trials -= 1

    def release(self, ticket: Ticket) -> None:
        """The request is over."""
        self.prefilled(ticket)
        self.acquit(ticket)
        if self.loads.pop(ticket, None) is not None:
            self.kv_tokens -= ticket.tokens
            self.output_tokens -= ticket.output_tokens
