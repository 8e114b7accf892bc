"""Reads what was sold, hour by hour: what was charged at settlement, and what the price book says
of the rest; that request by request where a price changed within the hour."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, func, select

from serving.controller.cost_report import Sold
from serving.controller.store import Store
from serving.controller.usage_tables import USAGE, USAGE_HOURS
from serving.prices import PriceBook

HOUR_S = 3600
SUMS = ("requests", "prompt", "cached", "completion")
CHARGED = ("charged", "charged_prompt", "charged_cached", "charged_completion")


async def sales(store: Store, first_hour: int, end_hour: int, book: PriceBook) -> list[Sold]:
    """Everything that was sold in these hours, each part of it at one price.

    Raises:
        DatabaseError: If the database does not answer.
    """
    hours = USAGE_HOURS.c
    groups = (hours.hour, hours.project_id, hours.model, hours.tier)
    query = (
        select(*groups, *(func.sum(hours[name]).label(name) for name in (*SUMS, *CHARGED)))
        .where(hours.hour >= first_hour, hours.hour < end_hour)
        .group_by(*groups)
        .order_by(*groups)
    )
    found = []
    async with store.transaction() as db:
        for row in (await db.execute(query)).all():
            began = row.hour * HOUR_S
            charged = _charged(row, began)
            rest = _rest(row, began, requests=0 if charged else int(row.requests))
            if charged is not None:
                found.append(charged)
                if not (rest.prompt or rest.cached or rest.completion):
                    continue
            first = book.token_price(row.model, row.tier, began)
            last = book.token_price(row.model, row.tier, began + HOUR_S - 1e-3)
            if first == last:
                found.append(rest)
                continue
            singles = (await db.execute(_singly(row))).all()
            if singles:
                found += [_sold(single, requests=0 if charged else 1) for single in singles]
            else:  # they are older than single rows are kept
                found.append(rest)
    return found


def _charged(row: Row[Any], at: float) -> Sold | None:
    """What was charged in an hour, and all its requests; None where nothing was."""
    if not any(getattr(row, name) for name in CHARGED):
        return None
    return Sold(
        at=at,
        project_id=row.project_id,
        model=row.model,
        tier=row.tier,
        requests=int(row.requests),
        prompt=int(row.charged_prompt),
        cached=int(row.charged_cached),
        completion=int(row.charged_completion),
        charged=int(row.charged),
    )


def _rest(row: Row[Any], at: float, requests: int) -> Sold:
    """The tokens of an hour that nobody was charged for yet."""
    return Sold(
        at=at,
        project_id=row.project_id,
        model=row.model,
        tier=row.tier,
        requests=requests,
        prompt=int(row.prompt - row.charged_prompt),
        cached=int(row.cached - row.charged_cached),
        completion=int(row.completion - row.charged_completion),
    )


def _singly(row: Row[Any]) -> Select[Any]:
    one = USAGE.c
    began = row.hour * HOUR_S
    same = (one.project_id == row.project_id, one.model == row.model, one.tier == row.tier)
    columns: Sequence[Any] = [
        one[name] for name in ("at", "project_id", "model", "tier", *SUMS[1:])
    ]
    when = and_(one.at >= began, one.at < began + HOUR_S, one.price.is_(None))
    return select(*columns).where(when, *same)


def _sold(row: Row[Any], requests: int) -> Sold:
    return Sold(
        at=row.at,
        project_id=row.project_id,
        model=row.model,
        tier=row.tier,
        requests=requests,
        prompt=int(row.prompt),
        cached=int(row.cached),
        completion=int(row.completion),
    )
