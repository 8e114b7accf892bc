"""Reads usage: sums over hours, single rows for an export, and how the counts agree."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.controller.store import Store
from serving.controller.usage_tables import ATTEMPTS, ENGINE_TOTALS, USAGE, USAGE_HOURS
from serving.metered import UsageStatus
from serving.usage_views import DriftView, GroupBy, ReconcileView, UsageView

HOUR_S = 3600
PAGE_ROWS = 1000

GROUPS = {
    GroupBy.ORG: "org_id",
    GroupBy.PROJECT: "project_id",
    GroupBy.KEY: "key_id",
    GroupBy.MODEL: "model",
    GroupBy.TIER: "tier",
}

EXPORTED = (
    "usage_id", "at", "org_id", "project_id", "key_id", "model", "revision", "route", "tier",
    "status", "http_status", "prompt", "cached", "completion", "reasoning", "known", "estimated",
    "ttft_s", "duration_s", "attempts", "engine_id",
)  # fmt: skip
"""Columns of an export, in their order; `engine_s`, `engine_share_s` and `price` follow."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `since` on, before `until`; in Unix seconds."""

    since: float
    until: float


async def sums_by(store: Store, by: GroupBy, span: Span) -> list[UsageView]:
    """Sums of whole hours that lie in the span, the largest first.

    Raises:
        DatabaseError: If the database does not answer.
    """
    group = USAGE_HOURS.c[GROUPS[by]]
    hours = USAGE_HOURS.c
    query = (
        select(
            group,
            *(
                func.sum(hours[name]).label(name)
                for name in ("requests", "unknown", "prompt", "cached", "completion", "reasoning",
                             "engine_s")
            ),
        )
        .where(in_hours(span))
        .group_by(group)
        .order_by(func.sum(hours.prompt + hours.completion).desc(), group)
    )  # fmt: skip
    async with store.transaction() as db:
        rows = (await db.execute(query)).all()
    return [
        UsageView(
            group=row[0],
            requests=int(row.requests),
            unknown=int(row.unknown),
            prompt_tokens=int(row.prompt),
            cached_tokens=int(row.cached),
            completion_tokens=int(row.completion),
            reasoning_tokens=int(row.reasoning),
            engine_s=float(row.engine_s),
        )
        for row in rows
    ]


def in_hours(span: Span) -> ColumnElement[bool]:
    """The rows of USAGE_HOURS whose hour begins in the span, or that it begins in."""
    first, last = int(span.since // HOUR_S), -int(-span.until // HOUR_S)
    return and_(USAGE_HOURS.c.hour >= first, USAGE_HOURS.c.hour < last)


async def export(store: Store, span: Span) -> AsyncIterator[Row[Any]]:
    """Single rows of the span by time, with the columns EXPORTED, the seconds that their attempts
    were in engines and their share of these, as far as recorders have told, and what they were
    charged, in picodollars; a page at a time.

    Raises:
        DatabaseError: If the database does not answer.
    """
    attempts = ATTEMPTS.c
    in_engines = (
        select(func.sum(attempts.ended_at - attempts.started_at))
        .where(attempts.usage_id == USAGE.c.usage_id, attempts.ended_at >= attempts.started_at)
        .scalar_subquery()
        .label("engine_s")
    )
    columns = [
        *(USAGE.c[name] for name in EXPORTED), in_engines, USAGE.c.engine_share_s, USAGE.c.price
    ]  # fmt: skip
    after: tuple[float, str] | None = None
    while True:
        query = (
            select(*columns)
            .where(USAGE.c.at >= span.since, USAGE.c.at < span.until)
            .order_by(USAGE.c.at, USAGE.c.usage_id)
            .limit(PAGE_ROWS)
        )
        if after is not None:
            at, usage_id = after
            same = and_(USAGE.c.at == at, USAGE.c.usage_id > usage_id)
            query = query.where(or_(USAGE.c.at > at, same))
        async with store.transaction() as db:
            rows = (await db.execute(query)).all()
        for row in rows:
            yield row
        if len(rows) < PAGE_ROWS:
            return
        after = (rows[-1].at, rows[-1].usage_id)


async def unresolved(store: Store) -> Mapping[str, int]:
    """Requests whose tokens no recorder has told yet, by status.

    Raises:
        DatabaseError: If the database does not answer.
    """
    query = select(USAGE.c.status, func.count()).where(~USAGE.c.known).group_by(USAGE.c.status)
    async with store.transaction() as db:
        return {status: int(number) for status, number in (await db.execute(query)).all()}


async def reconcile(store: Store, span: Span) -> ReconcileView:
    """Holds the counts of what was stored within the span against each other.

    Gateways and hosts tell their sides a second apart, so that it should end some seconds ago.

    Raises:
        DatabaseError: If the database does not answer.
    """
    usage, attempts = USAGE.c, ATTEMPTS.c
    used = and_(usage.stored_at >= span.since, usage.stored_at < span.until)
    made = and_(attempts.stored_at >= span.since, attempts.stored_at < span.until)
    whole = and_(used, usage.status == UsageStatus.COMPLETE.value, usage.known)
    joined = USAGE.outerjoin(ATTEMPTS, attempts.attempt_id == usage.attempt_id)
    both = select(
        func.count().label("whole"),
        func.count(attempts.attempt_id).label("found"),
        *_sums(usage.prompt, "u_prompt", attempts.attempt_id),
        *_sums(usage.completion, "u_completion", attempts.attempt_id),
        *_sums(attempts.prompt, "a_prompt"),
        *_sums(attempts.completion, "a_completion"),
    ).select_from(joined)
    async with store.transaction() as db:
        one = (await db.execute(both.where(whole))).one()
        requests = await _count(db, USAGE, used)
        return ReconcileView(
            since=datetime.fromtimestamp(span.since, UTC),
            requests=requests,
            attempts=await _count(db, ATTEMPTS, made),
            unresolved=await _count(db, USAGE, used, ~usage.known),
            unknown=await _count(db, USAGE, used, usage.status == UsageStatus.UNKNOWN.value),
            usage_without_attempt=one.whole - one.found,
            attempts_without_usage=await _lone_attempts(db, made),
            lost_attempts=int((await db.execute(_totals(span, "lost"))).scalar_one() or 0),
            drifts=[
                DriftView(between="usage and attempts", kind="prompt",
                          left=int(one.u_prompt or 0), right=int(one.a_prompt or 0)),
                DriftView(between="usage and attempts", kind="completion",
                          left=int(one.u_completion or 0), right=int(one.a_completion or 0)),
                *await _engine_drifts(db, span),
            ],
        )  # fmt: skip


async def _engine_drifts(db: AsyncConnection, span: Span) -> Sequence[DriftView]:
    totals = ENGINE_TOTALS.c
    # While an engine runs its recorder counts what no attempt that has ended tells of.
    of_engines = and_(ATTEMPTS.c.engine_id == totals.engine_id, totals.final, _told_in(span))
    summed = select(
        func.count().label("attempts"),
        func.sum(ATTEMPTS.c.prompt).label("prompt"),
        func.sum(ATTEMPTS.c.completion).label("completion"),
    ).select_from(ATTEMPTS.join(ENGINE_TOTALS, of_engines))
    stored = (await db.execute(summed)).one()
    kinds = ("attempts", "prompt", "completion")
    ended = (await db.execute(_totals(span, *kinds).where(totals.final))).one()
    drifts = [
        DriftView(between="attempts and recorders", kind=kind,
                  left=int(getattr(stored, kind) or 0), right=int(getattr(ended, kind) or 0))
        for kind in kinds
    ]  # fmt: skip
    for kind in ("prompt", "completion"):
        names = (kind, f"other_{kind}", f"engine_{kind}")
        recorded, other, own = (await db.execute(_totals(span, *names))).one()
        drifts.append(
            DriftView(between="recorders and engines", kind=kind,
                      left=int(recorded or 0) + int(other or 0), right=int(own or 0))
        )  # fmt: skip
    return drifts


def _told_in(span: Span) -> ColumnElement[bool]:
    stored_at = ENGINE_TOTALS.c.stored_at
    return and_(stored_at >= span.since, stored_at < span.until)


def _totals(span: Span, *names: str) -> Select[Any]:
    sums = [func.sum(ENGINE_TOTALS.c[name]).label(name) for name in names]
    return select(*sums).where(_told_in(span))


def _sums(
    column: ColumnElement[int], name: str, where: ColumnElement[str] | None = None
) -> list[ColumnElement[int]]:
    total = func.sum(column)
    if where is not None:
        return [total.filter(where.is_not(None)).label(name)]
    return [total.label(name)]


async def _count(db: AsyncConnection, table: Table, *where: ColumnElement[bool]) -> int:
    query = select(func.count()).select_from(table).where(*where)
    return int((await db.execute(query)).scalar_one())


async def _lone_attempts(db: AsyncConnection, made: ColumnElement[bool]) -> int:
    settled = select(USAGE.c.usage_id).where(USAGE.c.usage_id == ATTEMPTS.c.usage_id).exists()
    return await _count(db, ATTEMPTS, made, ~settled)
