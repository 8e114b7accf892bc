"""The price book: the most exact price of the moment, and what follows from it."""

import pytest

from serving.identities import TokenPrice
from serving.money import picodollars
from serving.prices import Capacity, GpuPrice, PriceBook, charge


def token(model: str, tier: str, since: float, output: int) -> TokenPrice:
    return TokenPrice(
        price_id=f"{model}-{tier}-{since}", model=model, tier=tier, since=since,
        input=output // 4, cached=output // 8, output=output,
    )  # fmt: skip


def test_most_exact_price_of_the_moment_holds() -> None:
    book = PriceBook(
        [token("*", "*", 0, 8), token("*", "flex", 0, 4), token("guide", "*", 0, 80),
         token("guide", "flex", 0, 40), token("guide", "*", 100, 160)]
    )  # fmt: skip

    def output(model: str, tier: str, at: float) -> int | None:
        price = book.token_price(model, tier, at)
        return None if price is None else price.output

    assert output("guide", "default", 99) == 80
    assert output("guide", "default", 100) == 160
    assert output("guide", "flex", 100) == 40
    assert output("other", "flex", 100) == 4
    assert output("other", "default", 100) == 8
    assert output("other", "default", -1) is None
    assert PriceBook().token_price("guide", "default", 0) is None


@pytest.mark.parametrize("said", ["", "auto", "default"])
def test_request_that_leaves_its_tier_to_us_has_the_default_ones_price(said: str) -> None:
    book = PriceBook([token("*", "*", 0, 8), token("*", "default", 0, 6)])
    price = book.token_price("guide", said, 0)
    assert price is not None
    assert price.output == 6


def test_cached_tokens_cost_less() -> None:
    assert charge(token("*", "*", 0, 8), prompt=100, cached=40, completion=10) == 60 * 2 + 40 + 80


def test_h100_is_in_the_book_from_the_start_and_discounts_follow_it() -> None:
    book = PriceBook()
    assert book.gpu_hour("h100", Capacity.ON_DEMAND, 0) == picodollars("2.39")
    reserved, spot = (book.gpu_hour("h100", c, 0) for c in (Capacity.RESERVED, Capacity.SPOT))
    assert reserved is not None
    assert spot is not None
    assert 0.7 <= reserved / picodollars("2.39") <= 0.9
    assert 0.2 <= spot / picodollars("2.39") < 0.7
    assert book.gpu_hour("b300", Capacity.SPOT, 0) is None
    assert book.gpu_hour("cpu", Capacity.ON_DEMAND, 0) == 0


def test_operators_price_takes_the_place_of_the_default() -> None:
    own = GpuPrice(price_id="p", accelerator="h100", capacity=Capacity.ON_DEMAND, per_hour=3)
    later = own.model_copy(update={"since": 50.0, "per_hour": 2, "capacity": Capacity.SPOT})
    book = PriceBook((), [own, later])
    assert book.gpu_hour("h100", Capacity.ON_DEMAND, 10) == 3
    assert book.gpu_hour("h100", Capacity.SPOT, 10) == 3 * 40 // 100
    assert book.gpu_hour("h100", Capacity.SPOT, 50) == 2
