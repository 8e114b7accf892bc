"""Which limits touch a request, and how much of each it may take at most. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from models.adapters_spec import split_name
from serving.gateway.calls import Call
from serving.gateway.limits_meter import Demand, Meter
from serving.gateway.tokens import Tokens
from serving.identities import ALL_MODELS, LimitRecord, TokenPrice
from serving.prices import PriceBook, charge
from serving.shares import FIELD_OF, MeterKind

BYTES_A_TOKEN = 4

SILENT_ROUTES = ("/v1/embeddings", "/v1/rerank", "/v2/rerank", "/rerank", "/v1/score", "/score",
                 "/tokenize", "/detokenize", "/pooling", "/classify")  # fmt: skip
"""Operations that write nothing."""

LONGEST = 4096
"""Tokens that an answer may have where neither the tenant nor the model says."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most that a request takes."""

    input: int
    output: int
    is_said: bool
    """The tenant said how long the answer may be, or it has none."""


class Rules:
    """The limits by their scope and model, with a meter for each that limits something."""

    def __init__(self, limits: Iterable[LimitRecord], prices: Iterable[TokenPrice]) -> None:
        self._meters: dict[tuple[str, MeterKind], Meter] = {}
        self._by_scope: dict[tuple[str, str], tuple[Meter, ...]] = {}
        self._max_tokens: dict[tuple[str, str], int] = {}
        self.prices = PriceBook()
        self.update(limits, prices)

    def update(self, limits: Iterable[LimitRecord], prices: Iterable[TokenPrice]) -> None:
        """Follows a change; meters whose limit stays keep what they counted."""
        known, self._meters, self._by_scope, self._max_tokens = self._meters, {}, {}, {}
        self.prices = PriceBook(prices)
        for limit in limits:
            here = (limit.scope_id, limit.model)
            if limit.max_tokens is not None:
                self._max_tokens[here] = limit.max_tokens
            meters = []
            for kind, field in FIELD_OF.items():
                if getattr(limit, field) is None:
                    continue
                meter = known.get((limit.limit_id, kind)) or Meter(limit, kind)
                meter.set_limit(limit)
                self._meters[limit.limit_id, kind] = meter
                meters.append(meter)
            self._by_scope[here] = tuple(meters)

    def __bool__(self) -> bool:
        return bool(self._by_scope)

    def meters(self) -> list[Meter]:
        """All of them."""
        return list(self._meters.values())

    def meter(self, limit_id: str, kind: MeterKind) -> Meter | None:
        """One of them."""
        return self._meters.get((limit_id, kind))

    def touching(self, scopes: Iterable[str], model: str) -> tuple[Meter, ...]:
        """The meters that a request counts on: of each scope, for its model and for all. What an
        adapter takes counts for its model too."""
        found: tuple[Meter, ...] = ()
        names = _names(model)
        for scope in scopes:
            for name in names:
                found += self._by_scope.get((scope, name), ())
        return found

    def max_tokens(self, scopes: Iterable[str], model: str) -> int | None:
        """How long an answer may be; None where no limit says."""
        if not self._max_tokens:
            return None
        names = _names(model)
        caps = [
            cap
            for scope in scopes
            for name in names
            if (cap := self._max_tokens.get((scope, name))) is not None
        ]
        return min(caps, default=None)


def _names(model: str) -> tuple[str, ...]:
    """Under which names limits of a model stand."""
    base = split_name(model)[0]
    return (model, ALL_MODELS) if base == model else (model, base, ALL_MODELS)


def estimate(call: Call, route: str, longest: int | None) -> Estimate:
    """The most that a request takes.

    Args:
        longest: Of the model: tokens of prompt and answer together.
    """
    prompt = max(1, call.prompt_bytes // BYTES_A_TOKEN)
    if route in SILENT_ROUTES:
        return Estimate(prompt, 0, is_said=True)
    if call.max_tokens is not None:
        return Estimate(prompt, call.n * call.max_tokens, is_said=True)
    room = LONGEST if longest is None else max(1, longest - prompt)
    return Estimate(prompt, call.n * room, is_said=False)


def demands(meters: Iterable[Meter], most: Estimate, price: TokenPrice | None) -> list[Demand]:
    """What a request wants of each meter.

    Where the tenant did not say how long the answer may be, it wants at most all that there is:
    else no request would pass that could fill a long context.
    """
    amounts = amounts_of(most.input, most.output, _cost(price, most))
    found = []
    for meter in meters:
        amount = amounts[meter.kind]
        if not most.is_said and meter.kind is not MeterKind.INPUT:
            amount = min(amount, max(1, meter.limit))
        found.append(Demand(meter, amount))
    return found


def amounts_of(prompt: int, completion: int, cost: int) -> dict[MeterKind, int]:
    """What tokens are on each kind of meter."""
    return {
        MeterKind.REQUESTS: 1,
        MeterKind.INPUT: prompt,
        MeterKind.OUTPUT: completion,
        MeterKind.CONCURRENT: 1,
        MeterKind.DAY: cost,
        MeterKind.MONTH: cost,
    }


def cost_of(price: TokenPrice | None, tokens: Tokens) -> int:
    """What tokens cost, in picodollars; nothing where nobody set a price."""
    if price is None:
        return 0
    return charge(price, tokens.prompt, min(tokens.cached, tokens.prompt), tokens.completion)


def _cost(price: TokenPrice | None, most: Estimate) -> int:
    return 0 if price is None else charge(price, most.input, 0, most.output)


Longest = Callable[[str], int | None]
"""Of a model: tokens of prompt and answer together."""
