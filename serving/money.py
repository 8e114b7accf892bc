"""Money, exactly: whole picodollars (10^-12 $), never a float.

A price of $0.000001 for a million tokens is one picodollar for each, so that every price that
stands on a price list multiplies without a remainder. A 64-bit column holds 9.2 million dollars.
"""

from decimal import Decimal, InvalidOperation

from models.errors import BadRequestError

PICO = 10**12
MILLION = 10**6
MOST = 2**63 - 1
"""What a 64-bit column holds."""


def picodollars(dollars: str | int | Decimal, param: str | None = None) -> int:
    """An amount in dollars as whole picodollars; what is finer is refused, not rounded.

    Raises:
        BadRequestError: If it is no number, negative, too large, or finer than a picodollar.
    """
    try:
        amount = Decimal(str(dollars).strip().removeprefix("$"))
    except InvalidOperation:
        raise BadRequestError(
            f"{str(dollars)[:40]!r} is no amount in dollars", param=param
        ) from None
    if not amount.is_finite() or amount < 0:
        raise BadRequestError("an amount of money may not be negative", param=param)
    scaled = amount * PICO
    if scaled != scaled.to_integral_value():
        raise BadRequestError("an amount may have 12 places after the point at most", param=param)
    if scaled > MOST:
        raise BadRequestError("the amount is larger than 9 million dollars", param=param)
    return int(scaled)


def per_token(dollars_per_million: str | int | Decimal, param: str | None = None) -> int:
    """A price in dollars for a million tokens as picodollars for one.

    Raises:
        BadRequestError: If it is no price, or finer than $0.000001 for a million.
    """
    whole = picodollars(dollars_per_million, param)
    if whole % MILLION:
        raise BadRequestError("a price may have 6 places after the point at most", param=param)
    return whole // MILLION


def dollars(pico: int) -> Decimal:
    """An amount in dollars, exactly."""
    return Decimal(pico).scaleb(-12)


def plain(pico: int) -> str:
    """An amount in dollars without an exponent or zeros at its end: `2.39`, `0.000042`."""
    text = f"{dollars(pico):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def shown(pico: int, places: int = 2) -> str:
    """An amount for people: `$2.39`; more places where it would read as nothing."""
    amount = dollars(pico)
    while places < 12 and amount and abs(amount) < Decimal(1).scaleb(1 - places):
        places += 1
    return f"${amount:,.{places}f}"
