"""Limits as a toll: what a request may take at most is reserved before it is dispatched, and
settled with what it took.

Where the meters' shares come from is the source's business: the controller (`limits_shares`) or
Redis (`limits_redis`).
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from models.errors import BadRequestError, RateLimitedError, UnavailableError
from serving.gateway.auth import Keyring
from serving.gateway.calls import Call, Reading
from serving.gateway.limits_headers import headers_of
from serving.gateway.limits_meter import Demand, Meter, Reserved, Shortage
from serving.gateway.limits_rules import (
    Longest,
    Rules,
    amounts_of,
    cost_of,
    demands,
    estimate,
)
from serving.gateway.tokens import Tokens
from serving.gateway.tolls import FREE, Passage
from serving.gateway.visits import Visit
from serving.identities import TokenPrice
from serving.shares import MeterKind

LONGEST_FIELD = {"/v1/responses": "max_output_tokens"}

WORDS = {
    MeterKind.REQUESTS: "requests in a minute",
    MeterKind.INPUT: "prompt tokens in a minute",
    MeterKind.OUTPUT: "completion tokens in a minute",
    MeterKind.CONCURRENT: "requests at once",
}
SCOPES = {"org": "organisation", "proj": "project", "key": "key"}


class WhenDown(StrEnum):
    """What becomes of requests where nobody can say whether a limit is used up."""

    ALLOW = "allow"
    DENY = "deny"


class BudgetSpentError(RateLimitedError):
    """A budget of the tenant is spent."""

    code = "insufficient_quota"


class RequestTooLargeError(RateLimitedError):
    """The request would pass a limit on its own."""

    code = "request_too_large"


class LimitStoreDownError(UnavailableError):
    """Nobody can say whether a limit is used up, and the operator chose to refuse then."""

    code = "limit_store_down"


class Source(Protocol):
    """Who says how much there is."""

    async def take(self, wanted: Sequence[Demand]) -> list[Reserved] | Shortage:
        """Reserves all that is wanted, or nothing.

        Raises:
            LimitStoreDownError: If nobody can say whether there is enough.
        """
        ...

    def settled(self, taken: Sequence[tuple[Reserved, int]]) -> None:
        """What was reserved took these amounts in the end."""
        ...


class Metered:
    """The way of a request that has reserved something."""

    def __init__(
        self, source: Source, reserved: list[Reserved], prompt: int, price: TokenPrice | None
    ) -> None:
        self._source = source
        self._reserved = reserved
        self._prompt = prompt
        self._price = price

    def dispatched(self, visit: Visit) -> None:
        """As Passage."""

    async def cleared(self) -> None:
        """As Passage."""

    def settle(self, visit: Visit) -> None:
        """Gives back what was not used; one that no engine saw used its place and nothing else."""
        took = tokens_of(visit, self._prompt)
        cost = cost_of(self._price, took)
        amounts = amounts_of(took.prompt, took.completion, cost)
        amounts[MeterKind.CONCURRENT] = 0
        self._source.settled([(one, amounts[one.meter.kind]) for one in self._reserved])


class LimitsToll:
    """Where requests that are beyond a limit end.

    Args:
        longest: How many tokens a model takes, prompt and answer together.
    """

    def __init__(self, keyring: Keyring, rules: Rules, source: Source, longest: Longest) -> None:
        self._keyring = keyring
        self._generation = -1
        self._rules = rules
        self._source = source
        self._longest = longest

    async def enter(self, visit: Visit, call: Call) -> Passage:
        """Reserves what the request may take at most.

        Raises:
            RateLimitedError: If a limit is used up, or too small for this request.
            LimitStoreDownError: If nobody can say so, and the operator chose to refuse then.
        """
        rules = self.rules()
        if not rules:
            return FREE
        scopes = (visit.key_id, visit.project_id, visit.org_id)
        meters = rules.touching(scopes, call.model)
        if not meters:
            return FREE
        at = self._keyring.clock()
        price = rules.prices.token_price(call.model, call.service_tier or "", at)
        most = estimate(call, visit.route, self._longest(call.model))
        wanted = demands(meters, most, price)
        for demand in wanted:
            demand.meter.want(at, demand.amount)
        outcome = await self._source.take(wanted)
        visit.headers += headers_of(meters, self._keyring.clock())
        if isinstance(outcome, Shortage):
            raise refusal(outcome, self._keyring.clock())
        return Metered(self._source, outcome, most.input, price)

    def rules(self) -> Rules:
        """The rules of this moment."""
        if self._generation != self._keyring.generation:
            self._generation = self._keyring.generation
            self._rules.update(self._keyring.limits.values(), self._keyring.prices.values())
        return self._rules

    def cap_answer(self, visit: Visit, reading: Reading) -> None:
        """Sees to it that an answer is no longer than a limit says: sets that where the tenant
        did not say how long it may be.

        Raises:
            BadRequestError: If the tenant asks for more.
        """
        rules = self.rules()
        if not rules or not reading.limits:
            return
        scopes = (visit.key_id, visit.project_id, visit.org_id)
        cap = rules.max_tokens(scopes, reading.model)
        if cap is None:
            return
        asked = [name for name in reading.limits if isinstance(reading.fields.get(name), int)]
        for name in asked:
            if int(str(reading.fields[name])) > cap:
                raise BadRequestError(f"{name} may be at most {cap} for this key", param=name)
        if not asked:
            reading.fields[LONGEST_FIELD.get(visit.route, "max_tokens")] = cap


def tokens_of(visit: Visit, prompt: int) -> Tokens:
    """What a request took; where the engine did not say, what went out tells it."""
    if visit.tokens is not None:
        return visit.tokens
    if visit.attempts == 0:
        return Tokens(0, 0)
    if visit.status >= 400 and visit.first_byte_s is None:
        return Tokens(0, 0)
    return Tokens(prompt, visit.delivered)


def refusal(shortage: Shortage, at: float) -> RateLimitedError:
    """The error for a request that does not fit."""
    meter = shortage.meter
    scope = SCOPES.get(scope_of(meter).partition("-")[0], "tenant")
    if shortage.never and meter.limit:
        return RequestTooLargeError(
            f"this request asks for {shortage.amount} {WORDS.get(meter.kind, 'picodollars')}, "
            f"and the {scope} may have {meter.limit}",
            param="max_tokens" if meter.kind is MeterKind.OUTPUT else None,
            retry_after_s=60.0,
        )
    wait_s = meter.book.frees_in_s(at, shortage.amount, shortage.cap)
    if meter.kind in (MeterKind.DAY, MeterKind.MONTH):
        return BudgetSpentError(
            f"the {scope}'s budget for this {meter.kind} is spent", retry_after_s=wait_s
        )
    return RateLimitedError(
        f"the {scope} may have {meter.limit} {WORDS[meter.kind]}, and has had them",
        retry_after_s=wait_s,
    )


def scope_of(meter: Meter) -> str:
    """The id of the organisation, project or key that a meter is of."""
    return meter.limit_id.removeprefix("limit:").rpartition(":")[0]
