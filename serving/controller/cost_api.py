"""Costs over HTTP: `/admin/v1/costs`, and OpenAI's `/v1/organization/costs`."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Container, Mapping
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query, Response

from models.errors import BadRequestError
from models.manifest import Manifest
from serving.controller.callers import Here, require_permission
from serving.controller.cost_queries import HOUR_S, sales
from serving.controller.cost_report import report, revenue_of
from serving.controller.cost_rivals import Rival, rivals
from serving.controller.fleet_hours import read_rows
from serving.controller.price_store import PriceStore
from serving.controller.usage_buckets import page_start
from serving.costs import CostReport
from serving.money import plain
from serving.prices import PriceBook

DAY_S = 86_400
MOST_HOURS = 24 * 400
MOST_BUCKETS = 180
GROUPS = frozenset({"project_id", "line_item"})

admin = APIRouter(prefix="/admin/v1", dependencies=[Depends(require_permission)])
organization = APIRouter(prefix="/v1/organization", dependencies=[Depends(require_permission)])

Names = Annotated[list[str] | None, Query()]


@admin.get("/costs")
async def costs(
    here: Here, hours: Annotated[float, Query(gt=0, le=MOST_HOURS)] = 24.0
) -> CostReport:
    """Revenue, GPU cost and what would cost less, in the last hours; whole hours count."""
    end_hour = int(time.time() // HOUR_S) + 1
    first_hour = end_hour - max(1, round(hours))
    prices = PriceStore(here.store)
    book = await prices.book()
    fleet = await read_rows(here.store, first_hour, end_hour)
    sold = await sales(here.store, first_hour, end_hour, book)
    manifests = {model.name: model.manifest for model in here.registry.models()}
    until = min(time.time(), end_hour * HOUR_S)
    used = {row.model for row in fleet}
    others = await asyncio.to_thread(_others, manifests, used, book, until)
    return report(first_hour * HOUR_S, until, sold, fleet, book, manifests, others)


def _others(
    manifests: Mapping[str, Manifest], used: Container[str], book: PriceBook, at: float
) -> dict[str, list[Rival]]:
    """What other accelerators would make of the models that had engines; reads files."""
    return {name: rivals(one, book, at) for name, one in manifests.items() if name in used}


@organization.get("/costs")
async def organization_costs(
    here: Here,
    start_time: int,
    end_time: int | None = None,
    bucket_width: str = "1d",
    limit: Annotated[int, Query(ge=1, le=MOST_BUCKETS)] = 7,
    page: str | None = None,
    group_by: Names = None,
    group_by_: Annotated[list[str] | None, Query(alias="group_by[]")] = None,
    project_ids: Names = None,
    project_ids_: Annotated[list[str] | None, Query(alias="project_ids[]")] = None,
) -> Response:
    """What tenants owe, as OpenAI's API tells it; a line item is a model."""
    groups = {*(group_by or ()), *(group_by_ or ())}
    if strange := groups - GROUPS:
        raise BadRequestError(f"group_by must be of {', '.join(sorted(GROUPS))}", param="group_by",
                              hint=f"not {sorted(strange)[0]}")  # fmt: skip
    if bucket_width != "1d":
        raise BadRequestError("bucket_width must be 1d", param="bucket_width")
    end = int(time.time()) + 1 if end_time is None else end_time
    if not 0 <= start_time < end < 2**40:
        raise BadRequestError("end_time must be after start_time", param="end_time")
    chosen = {*(project_ids or ()), *(project_ids_ or ())}
    first = (page_start(page) or start_time) // DAY_S * DAY_S
    last = min(end, first + limit * DAY_S)
    book = await PriceStore(here.store).book()
    sold = await sales(here.store, first // HOUR_S, -(-last // HOUR_S), book)
    owed: defaultdict[tuple[int, str | None, str | None], int] = defaultdict(int)
    for one in sold:
        if chosen and one.project_id not in chosen:
            continue
        day = int(one.at // DAY_S * DAY_S)
        project_id = one.project_id if "project_id" in groups else None
        line_item = one.model if "line_item" in groups else None
        owed[day, project_id, line_item] += revenue_of(one, book) or 0
    more = last < end
    document = {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": day,
                "end_time": min(day + DAY_S, end),
                "results": [
                    _result(amount, project_id, line_item)
                    for (of_day, project_id, line_item), amount in sorted(
                        owed.items(), key=lambda item: tuple(str(part) for part in item[0])
                    )
                    if of_day == day
                ],
            }
            for day in range(first, last, DAY_S)
        ],
        "has_more": more,
        "next_page": f"page_{last}" if more else None,
    }
    return Response(orjson.dumps(document), media_type="application/json")


def _result(amount: int, project_id: str | None, line_item: str | None) -> dict[str, object]:
    # The number goes out digit by digit: no float has been near it.
    return {
        "object": "organization.costs.result",
        "amount": {"value": orjson.Fragment(plain(amount)), "currency": "usd"},
        "line_item": line_item,
        "project_id": project_id,
    }
