"""Usage over HTTP: what gateways and hosts hand in, and what operators read.

Three routers: `/internal/v1` (see `serving.metered`), `/admin/v1/usage` (see
`serving.usage_views`) and OpenAI's `/v1/organization/usage`.
"""

import csv
import io
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from sqlalchemy import Row

from models.errors import BadRequestError
from serving.controller import usage_queries
from serving.controller.callers import Here, require_permission
from serving.controller.http import read_body
from serving.controller.internal import require_internal_token
from serving.controller.price_store import PriceStore
from serving.controller.usage_buckets import BucketQuery, page_of_usage, page_start
from serving.controller.usage_keeper import LAG_S
from serving.controller.usage_queries import EXPORTED, Span
from serving.logs import get_logger
from serving.metered import (
    AttemptBatch,
    AttemptReceipt,
    UsageReceipt,
    UsageRow,
)
from serving.money import plain
from serving.prices import PriceBook, charge
from serving.usage_views import ExportFormat, GroupBy, ReconcileView, UsagePage, UsageView
from serving.views import Items

MAX_BODY_BYTES = 16 * 2**20
DAY_S = 86_400.0
EXPORTED_AT_ONCE = 500
COLUMNS = (*EXPORTED, "engine_s", "engine_share_s", "price")

log = get_logger(__name__)

internal = APIRouter(
    prefix="/internal/v1",
    include_in_schema=False,
    dependencies=[Depends(require_internal_token)],
)
admin = APIRouter(prefix="/admin/v1", dependencies=[Depends(require_permission)])
organization = APIRouter(prefix="/v1/organization", dependencies=[Depends(require_permission)])

Since = Annotated[float | None, Query(description="Unix seconds; a day ago by default.")]
Until = Annotated[float | None, Query(description="Unix seconds; now by default.")]
Names = Annotated[list[str] | None, Query()]


# --- gateways and hosts -> controller ----------------------------------------------------------


@internal.post("/usage")
async def take_usage(request: Request, here: Here) -> Response:
    """Stores settled usage; 503 while the database is away, and the gateway tries again."""
    rows = _usage_rows(await read_body(request, MAX_BODY_BYTES))
    new = await here.usage.add_usage(rows, time.time())
    return Response(UsageReceipt(new=new).model_dump_json(), media_type="application/json")


@internal.post("/attempts")
async def take_attempts(request: Request, here: Here) -> Response:
    """Stores what an engine's recorder counted; 503 while the database is away."""
    try:
        batch = AttemptBatch.model_validate_json(await read_body(request, MAX_BODY_BYTES))
    except ValidationError as exc:
        raise BadRequestError(f"AttemptBatch: {exc.errors()[0]['msg']}") from exc
    new = await here.usage.add_attempts(batch, time.time())
    return Response(AttemptReceipt(new=new).model_dump_json(), media_type="application/json")


def _usage_rows(body: bytes) -> list[UsageRow]:
    """The rows of a batch. One that makes no sense is logged whole: refused, it would hold up all
    that come after it."""
    try:
        given = orjson.loads(body)["rows"]
        if not isinstance(given, list):
            raise TypeError
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise BadRequestError("the body is no UsageBatch") from exc
    rows = []
    for fields in given:
        try:
            rows.append(UsageRow.model_validate(fields))
        except ValidationError as exc:
            log.error("usage_row_refused", row=fields, reason=exc.errors()[0]["msg"])
    return rows


# --- controller -> operators -------------------------------------------------------------------


@admin.get("/usage")
async def list_usage(
    here: Here, by: GroupBy = GroupBy.MODEL, since: Since = None, until: Until = None
) -> Items[UsageView]:
    """Usage of the hours from `since` to `until`, summed up."""
    return Items(items=await usage_queries.sums_by(here.store, by, _span(since, until)))


@admin.get("/usage/export")
async def export_usage(
    here: Here,
    how: Annotated[ExportFormat, Query(alias="format")] = ExportFormat.CSV,
    since: Since = None,
    until: Until = None,
) -> StreamingResponse:
    """Single requests from `since` to `until`, by time.

    `engine_s` is for how long engines had it, `engine_share_s` its share of these engines' time,
    `price` what it was charged in dollars; each is empty where nobody knows.
    """
    book = await PriceStore(here.store).book()
    rows = usage_queries.export(here.store, _span(since, until))
    first = await anext(rows, None)  # a database that is away is told before the answer begins

    async def parts() -> AsyncIterator[str]:
        if how is ExportFormat.CSV:
            yield _csv([COLUMNS])
        block = [] if first is None else [_line(first, book)]
        async for row in rows:
            block.append(_line(row, book))
            if len(block) >= EXPORTED_AT_ONCE:
                yield _written(block, how)
                block = []
        yield _written(block, how)

    kind = "text/csv" if how is ExportFormat.CSV else "application/jsonl"
    return StreamingResponse(parts(), media_type=f"{kind}; charset=utf-8")


@admin.get("/usage/reconcile")
async def reconcile(here: Here, since: Since = None) -> ReconcileView:
    """Holds usage against attempts, and attempts against the engines' counters, up to some seconds
    ago."""
    while await here.usage.resolve():
        pass
    span = _span(since, time.time() - LAG_S)
    return await usage_queries.reconcile(here.store, span)


@organization.get("/usage/completions")
async def completions(
    here: Here,
    start_time: int,
    end_time: int | None = None,
    bucket_width: str = "1d",
    limit: int | None = None,
    page: str | None = None,
    group_by: Names = None,
    group_by_: Annotated[list[str] | None, Query(alias="group_by[]")] = None,
    project_ids: Names = None,
    project_ids_: Annotated[list[str] | None, Query(alias="project_ids[]")] = None,
    api_key_ids: Names = None,
    api_key_ids_: Annotated[list[str] | None, Query(alias="api_key_ids[]")] = None,
    models: Names = None,
    models_: Annotated[list[str] | None, Query(alias="models[]")] = None,
) -> UsagePage:
    """Usage as OpenAI's API tells it; lists may be given as `group_by` or `group_by[]`."""
    query = BucketQuery(
        start=start_time,
        end=int(time.time()) + 1 if end_time is None else end_time,
        width=bucket_width,
        limit=limit,
        group_by=(*(group_by or ()), *(group_by_ or ())),
        project_ids=(*(project_ids or ()), *(project_ids_ or ())),
        key_ids=(*(api_key_ids or ()), *(api_key_ids_ or ())),
        models=(*(models or ()), *(models_ or ())),
        page=page_start(page),
    )
    return await page_of_usage(here.store, query)


def _span(since: float | None, until: float | None) -> Span:
    until = time.time() + 1 if until is None else until
    span = Span(until - DAY_S if since is None else since, until)
    if not 0 <= span.since < span.until < 2**40:
        raise BadRequestError("since must be before until, both Unix seconds", param="since")
    return span


def _written(rows: Sequence[tuple[object, ...]], how: ExportFormat) -> str:
    if how is ExportFormat.CSV:
        return _csv(rows)
    return "".join(
        orjson.dumps(dict(zip(COLUMNS, row, strict=True))).decode() + "\n" for row in rows
    )


def _line(row: Row[Any], book: PriceBook) -> tuple[object, ...]:
    return (*row[:-1], _price(row, book))


def _price(row: Row[Any], book: PriceBook) -> str | None:
    """Dollars that a request was charged; where nobody had set a price by then, its tokens by the
    book of its moment. None where it has none either, or the tokens are unknown."""
    if row.price is not None:
        return plain(row.price)
    price = book.token_price(row.model, row.tier, row.at) if row.known else None
    if price is None:
        return None
    return plain(charge(price, row.prompt, min(row.cached, row.prompt), row.completion))


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
