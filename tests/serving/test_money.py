"""Money: exact in, exact out, and nothing negative."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import BadRequestError
from serving.money import MOST, PICO, per_token, picodollars, plain, shown


@pytest.mark.parametrize(
    ("text", "pico"),
    [("2.39", 2_390_000_000_000), ("$1", PICO), ("0", 0), ("0.000000000001", 1), (" 5 ", 5 * PICO)],
)
def test_amounts_are_whole_picodollars(text: str, pico: int) -> None:
    assert picodollars(text) == pico


@pytest.mark.parametrize(
    "text", ["-1", "-0.01", "NaN", "Infinity", "one", "", "1e-13", "1e30", "9300000"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        picodollars(text, "budget_day")
    assert caught.value.param == "budget_day"


def test_prices_are_for_one_token() -> None:
    assert per_token("0.10") == 100_000
    assert per_token(Decimal("0.000001")) == 1
    with pytest.raises(BadRequestError):
        per_token("0.0000001")


@given(st.integers(0, MOST))
def test_every_amount_comes_back_as_it_was(pico: int) -> None:
    assert picodollars(plain(pico)) == pico


def test_amounts_read_well() -> None:
    assert [shown(picodollars(text)) for text in ("0", "2.39", "0.5", "1234.5", "0.00042")] == [
        "$0.00", "$2.39", "$0.50", "$1,234.50", "$0.00042",
    ]  # fmt: skip
