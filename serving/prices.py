"""The price book: what tokens are sold for, and what accelerators cost. Pure.

Resources and bodies of the admin API, shared by the controller and the CLI:

    GET    /admin/v1/prices             PriceList
    POST   /admin/v1/prices/tokens      NewTokenPrice -> TokenPriceView (201)
    POST   /admin/v1/prices/gpus        NewGpuPrice -> GpuPriceView (201)
    DELETE /admin/v1/prices/{id}        204

A price holds from its date on until a later one of the same model and tier takes its place; the
price of a moment never changes afterwards, unless it is deleted.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from models.adapters_spec import ServedName as ModelName
from models.adapters_spec import split_name
from serving.identities import ALL_MODELS, ANY, TokenPrice
from serving.messages import Message
from serving.money import MILLION, picodollars, plain
from serving.tenancy import Body
from serving.views import View

Dollars = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


DEFAULT_TIER = "default"
UNSAID_TIERS = frozenset({"", "auto"})
"""What a request says that is served as of the default tier."""


class Capacity(StrEnum):
    """How a machine is rented."""

    ON_DEMAND = "on-demand"
    RESERVED = "reserved"
    SPOT = "spot"


class GpuPrice(Message):
    """Picodollars for one accelerator and hour, from a moment on."""

    price_id: str
    accelerator: str
    capacity: Capacity
    since: float = 0.0
    per_hour: int = Field(ge=0)


SHARE_OF_ON_DEMAND = {Capacity.ON_DEMAND: 100, Capacity.RESERVED: 80, Capacity.SPOT: 40}
"""Percent. Where only the on-demand price is known: reserved capacity is sold for 10 to 30 % less,
spot for up to 80 % less; these stand for the middle until an operator says better."""

DEFAULT_GPU_PRICES = (
    GpuPrice(
        price_id="default-h100",
        accelerator="h100",
        capacity=Capacity.ON_DEMAND,
        per_hour=picodollars("2.39"),
    ),
    GpuPrice(price_id="default-cpu", accelerator="cpu", capacity=Capacity.ON_DEMAND, per_hour=0),
)
"""In the book from the start; an operator's own price takes their place."""


class PriceBook:
    """Looks prices up."""

    def __init__(
        self, tokens: Iterable[TokenPrice] = (), gpus: Iterable[GpuPrice] = DEFAULT_GPU_PRICES
    ) -> None:
        by_kind: defaultdict[tuple[str, str], list[TokenPrice]] = defaultdict(list)
        for price in tokens:
            by_kind[price.model, price.tier].append(price)
        self._tokens = {
            kind: sorted(prices, key=lambda p: -p.since) for kind, prices in by_kind.items()
        }
        by_gpu: defaultdict[tuple[str, Capacity], list[GpuPrice]] = defaultdict(list)
        for gpu in (*DEFAULT_GPU_PRICES, *gpus):  # of the same date, the later one is an operator's
            by_gpu[gpu.accelerator, gpu.capacity].insert(0, gpu)
        self._gpus = {gpu: sorted(prices, key=lambda p: -p.since) for gpu, prices in by_gpu.items()}

    def token_price(self, model: str, tier: str, at: float) -> TokenPrice | None:
        """The price of a model's tokens at a moment; the more exactly one fits, the better.

        A price for the model goes before one for the tier; an adapter without one has its model's.
        A request that names no tier, or leaves it to us, is of the default one. None: nobody set a
        price.
        """
        base = split_name(model)[0]
        tier = DEFAULT_TIER if tier in UNSAID_TIERS else tier
        for name in (model, base, ALL_MODELS) if base != model else (model, ALL_MODELS):
            for kind in ((name, tier), (name, ANY)):
                for price in self._tokens.get(kind, ()):
                    if price.since <= at:
                        return price
        return None

    def gpu_hour(self, accelerator: str, capacity: Capacity, at: float) -> int | None:
        """Picodollars for an accelerator's hour at a moment; None where nobody set a price."""
        if (own := self._gpu(accelerator, capacity, at)) is not None:
            return own
        on_demand = self._gpu(accelerator, Capacity.ON_DEMAND, at)
        return None if on_demand is None else on_demand * SHARE_OF_ON_DEMAND[capacity] // 100

    def _gpu(self, accelerator: str, capacity: Capacity, at: float) -> int | None:
        prices = self._gpus.get((accelerator, capacity), ())
        return next((price.per_hour for price in prices if price.since <= at), None)


def charge(price: TokenPrice, prompt: int, cached: int, completion: int) -> int:
    """What tokens cost, in picodollars; `cached` ones are among the prompt's."""
    return (prompt - cached) * price.input + cached * price.cached + completion * price.output


# --- resources --------------------------------------------------------------------------------


class NewTokenPrice(Body):
    """Dollars for a million tokens."""

    model: ModelName | Literal["*"] = ALL_MODELS
    """The model; `*` for all that have no price of their own."""
    tier: str = Field(default=ANY, pattern=r"^(\*|[a-z][a-z0-9-]{0,31})$")
    """The service tier; `*` for all."""
    input: Dollars
    cached: Dollars | None = None
    """Of prompt tokens that were in the engine's cache; if not given, as `input`."""
    output: Dollars
    since: datetime | None = None
    """From when on it holds; if not given, from now on."""


class NewGpuPrice(Body):
    """Dollars for one accelerator and hour."""

    accelerator: str = Field(pattern=r"^[a-z0-9-]{1,32}$")
    capacity: Capacity = Capacity.ON_DEMAND
    per_hour: Dollars
    since: datetime | None = None
    """From when on it holds; if not given, from now on."""


class TokenPriceView(View):
    """Dollars for a million tokens."""

    price_id: str
    model: str
    tier: str
    since: datetime
    input: str
    cached: str
    output: str

    @classmethod
    def of(cls, price: TokenPrice) -> "TokenPriceView":
        """The view of a price."""
        return cls(
            price_id=price.price_id,
            model=price.model,
            tier=price.tier,
            since=datetime.fromtimestamp(price.since, UTC),
            input=plain(price.input * MILLION),
            cached=plain(price.cached * MILLION),
            output=plain(price.output * MILLION),
        )


class GpuPriceView(View):
    """Dollars for one accelerator and hour."""

    price_id: str
    accelerator: str
    capacity: Capacity
    since: datetime
    per_hour: str

    @classmethod
    def of(cls, price: GpuPrice) -> "GpuPriceView":
        """The view of a price."""
        return cls(
            price_id=price.price_id,
            accelerator=price.accelerator,
            capacity=price.capacity,
            since=datetime.fromtimestamp(price.since, UTC),
            per_hour=plain(price.per_hour),
        )


class PriceList(View):
    """All prices, past and future ones too."""

    tokens: list[TokenPriceView]
    gpus: list[GpuPriceView]
