"""Usage in OpenAI's form: `GET /v1/organization/usage/completions`, bucket by bucket."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer as SqlInteger
from sqlalchemy import Select, and_, cast, func, select

from models.errors import BadRequestError
from serving.controller.store import Store
from serving.controller.usage_tables import USAGE, USAGE_HOURS
from serving.usage_views import CompletionsResult, UsageBucket, UsagePage

WIDTHS = {"1m": (60, 60, 1440), "1h": (3600, 24, 168), "1d": (86_400, 7, 31)}
"""Of each width: its seconds, how many buckets a page has by default, and at most."""

GROUPS = {
    "project_id": "project_id",
    "api_key_id": "key_id",
    "model": "model",
    "service_tier": "tier",
}
"""Fields to group by, and their columns; `user_id` and `batch` are always null here."""

NULL_GROUPS = frozenset({"user_id", "batch"})
SUMMED = ("requests", "prompt", "cached", "completion")


@dataclass(frozen=True, slots=True)
class BucketQuery:
    """What was asked for; times in Unix seconds."""

    start: int
    end: int
    width: str = "1d"
    limit: int | None = None
    group_by: tuple[str, ...] = ()
    project_ids: tuple[str, ...] = ()
    key_ids: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    page: int | None = None

    def check(self) -> None:
        """Refuses what makes no sense.

        Raises:
            BadRequestError: Naming the parameter.
        """
        if self.width not in WIDTHS:
            raise BadRequestError("bucket_width must be 1m, 1h or 1d", param="bucket_width")
        if strange := set(self.group_by) - GROUPS.keys() - NULL_GROUPS:
            known = ", ".join(sorted(GROUPS.keys() | NULL_GROUPS))
            raise BadRequestError(
                f"group_by must be of {known}; not {sorted(strange)[0]}", param="group_by"
            )
        most = WIDTHS[self.width][2]
        if self.limit is not None and not 1 <= self.limit <= most:
            raise BadRequestError(f"limit must be from 1 to {most}", param="limit")
        if self.end <= self.start:
            raise BadRequestError("end_time must be after start_time", param="end_time")


async def page_of_usage(store: Store, query: BucketQuery) -> UsagePage:
    """One page of buckets, empty ones included, as OpenAI does.

    Raises:
        BadRequestError: If the query makes no sense.
        DatabaseError: If the database does not answer.
    """
    query.check()
    width_s, default, _ = WIDTHS[query.width]
    first = (query.start if query.page is None else query.page) // width_s * width_s
    last = min(query.end, first + (query.limit or default) * width_s)
    async with store.transaction() as db:
        rows = (await db.execute(_select(query, width_s, first, last))).all()
    results: defaultdict[int, list[CompletionsResult]] = defaultdict(list)
    for row in rows:
        results[row.bucket * width_s].append(_result(row, query.group_by))
    buckets = [
        UsageBucket(start_time=start, end_time=min(start + width_s, query.end),
                    results=results[start])
        for start in range(first, last, width_s)
    ]  # fmt: skip
    more = last < query.end
    return UsagePage(data=buckets, has_more=more, next_page=f"page_{last}" if more else None)


def page_start(page: str | None) -> int | None:
    """Where a page begins, by the name that the page before it gave.

    Raises:
        BadRequestError: If no page was ever called so.
    """
    if page is None:
        return None
    mark, _, number = page.partition("_")
    if mark != "page" or not number.isdecimal() or len(number) > 12:
        raise BadRequestError("page must be the next_page of an answer", param="page")
    return int(number)


def _select(query: BucketQuery, width_s: int, first: int, last: int) -> Select[Any]:
    groups = [GROUPS[name] for name in query.group_by if name in GROUPS]
    # Minutes are read from the single rows; whole hours and days from the sums that outlive them.
    if width_s < 3600:
        columns = USAGE.c
        at = cast(func.floor(USAGE.c.at), SqlInteger)
        bucket = (at - at % width_s) / width_s
        when = and_(USAGE.c.at >= max(first, query.start), USAGE.c.at < last)
        requests: Any = func.count()
    else:
        columns = USAGE_HOURS.c
        step = width_s // 3600
        bucket = (columns.hour - columns.hour % step) / step
        when = and_(columns.hour >= first // 3600, columns.hour < -(-last // 3600))
        requests = func.sum(columns.requests)
    number = cast(bucket, SqlInteger).label("bucket")
    filters: Sequence[tuple[str, tuple[str, ...]]] = (
        ("project_id", query.project_ids), ("key_id", query.key_ids), ("model", query.models),
    )  # fmt: skip
    chosen = [columns[name] for name in groups]
    sums = [func.sum(columns[name]).label(name) for name in SUMMED[1:]]
    return (
        select(number, requests.label("requests"), *sums, *chosen)
        .where(when, *(columns[name].in_(values) for name, values in filters if values))
        .group_by(number, *chosen)
        .order_by(number, *chosen)
    )


def _result(row: Any, group_by: Sequence[str]) -> CompletionsResult:
    return CompletionsResult(
        input_tokens=int(row.prompt),
        output_tokens=int(row.completion),
        input_cached_tokens=int(row.cached),
        num_model_requests=int(row.requests),
        **{name: getattr(row, GROUPS[name]) for name in group_by if name in GROUPS},
    )
