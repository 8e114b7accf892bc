"""Usage and attempts in SQL: counted once, summed, resolved, forgotten; on both databases."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select

from serving.controller import usage_queries
from serving.controller.store import Store
from serving.controller.usage_buckets import BucketQuery, page_of_usage
from serving.controller.usage_queries import Span
from serving.controller.usage_store import UsageStore
from serving.controller.usage_tables import ATTEMPTS, USAGE
from serving.metered import (
    AttemptBatch,
    AttemptRow,
    EngineTotals,
    Outcome,
    UsageRow,
    UsageStatus,
)
from serving.usage_views import GroupBy
from tests.metering.postgres import Postgres
from tests.serving.controller.databases import fresh_database, postgres

AT = 1_700_000_000.0
ALL_TIME = Span(0, 2e9)
numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> object:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Store]:
    url = database_url
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("server")
        url = await fresh_database(server, f"usage{next(numbers)}")
    store = await Store.open(url)
    yield store
    await store.close()


def row(number: int = 1, **fields: object) -> UsageRow:
    given = {
        "usage_id": f"{number:032x}", "org_id": "org-1", "project_id": "proj-1",
        "key_id": "key-1", "model": "guide", "status": UsageStatus.COMPLETE, "http_status": 200,
        "at": AT + number, "attempts": 1, "engine_id": "e1", "prompt": 10, "cached": 4,
        "completion": 5, "duration_s": 0.5,
    }  # fmt: skip
    return UsageRow.model_validate({**given, **fields})


def attempt(number: int = 1, n: int = 1, **fields: object) -> AttemptRow:
    given = {
        "attempt_id": f"{number:032x}-{n}", "outcome": Outcome.ENDED, "started_at": AT,
        "ended_at": AT + 1, "prompt": 10, "cached": 4, "completion": 5,
    }  # fmt: skip
    return AttemptRow.model_validate({**given, **fields})


def batch(*rows: AttemptRow, final: bool = False, **totals: int) -> AttemptBatch:
    return AttemptBatch(engine_id="e1", rows=rows, totals=EngineTotals(**totals), final=final)


async def sums(store: Store) -> tuple[int, int, int, int]:
    """Requests and tokens as the hours have them."""
    (view,) = await usage_queries.sums_by(store, GroupBy.MODEL, ALL_TIME)
    return view.requests, view.prompt_tokens, view.cached_tokens, view.completion_tokens


async def test_usage_counts_each_row_once_however_often_it_comes(store: Store) -> None:
    usage = UsageStore(store, "forgive")
    assert await usage.add_usage([row(1), row(2), row(1)], AT) == 2
    assert await usage.add_usage([row(2), row(3)], AT) == 1
    assert await sums(store) == (3, 30, 12, 15)


async def test_usage_that_two_controllers_store_at_once_is_counted_once(store: Store) -> None:
    usage = UsageStore(store, "forgive")
    rows = [row(number) for number in range(50)]
    new = await asyncio.gather(*(usage.add_usage(rows, AT) for _ in range(4)))
    assert sorted(new) == [0, 0, 0, 50]
    assert await sums(store) == (50, 500, 200, 250)


async def test_usage_that_its_gateway_could_not_tell_is_told_by_the_recorder(store: Store) -> None:
    usage = UsageStore(store, "bill")
    unsaid = {"known": False, "prompt": 0, "cached": 0, "completion": 0}
    await usage.add_usage(
        [
            row(1, status=UsageStatus.CANCELLED, delivered=3, **{**unsaid, "completion": 3}),
            row(2, status=UsageStatus.UNKNOWN, **unsaid),
            row(3, status=UsageStatus.CUT, delivered=9, attempts=2, **{**unsaid, "completion": 9}),
        ],
        AT,
    )
    assert await sums(store) == (3, 0, 0, 12), "what was delivered counts until more is known"
    assert await usage.resolve() == 0
    await usage.add_attempts(batch(attempt(1), attempt(2), attempt(3, 1)), AT)
    assert await usage.resolve() == 2, "the second attempt of the third is not told yet"
    await usage.add_attempts(batch(attempt(3, 2, completion=7)), AT)
    assert await usage.resolve() == 1
    assert await usage.resolve() == 0
    async with store.transaction() as db:
        found = await db.execute(select(USAGE.c.prompt, USAGE.c.completion).order_by(USAGE.c.at))
        assert [tuple(one) for one in found] == [(10, 3), (10, 5), (10, 7)]
    assert await sums(store) == (3, 30, 12, 15)


async def test_usage_that_nobody_can_know_is_forgiven_if_the_operator_says_so(store: Store) -> None:
    usage = UsageStore(store, "forgive")
    await usage.add_usage([row(1, status=UsageStatus.UNKNOWN, known=False, completion=0)], AT)
    await usage.add_attempts(batch(attempt(1)), AT)
    assert await usage.resolve() == 0
    assert (await sums(store))[3] == 0


async def test_reconcile_names_every_difference(store: Store) -> None:
    usage = UsageStore(store, "bill")
    await usage.add_usage([row(1), row(2, completion=9), row(3)], AT)
    told = {"attempts": 4, "prompt": 40, "completion": 15, "other_prompt": 2, "lost": 1,
            "engine_prompt": 42, "engine_completion": 16}  # fmt: skip
    await usage.add_attempts(batch(attempt(1), attempt(2), attempt(7), final=True, **told), AT)
    seen = await usage_queries.reconcile(store, Span(AT - 1, AT + 1))
    assert (seen.requests, seen.attempts, seen.lost_attempts) == (3, 3, 1)
    assert (seen.usage_without_attempt, seen.attempts_without_usage) == (1, 1)
    drifts = {(one.between, one.kind): one.tokens for one in seen.drifts}
    assert drifts == {
        ("usage and attempts", "prompt"): 0,
        ("usage and attempts", "completion"): 4,
        ("attempts and recorders", "attempts"): -1,
        ("attempts and recorders", "prompt"): -10,
        ("attempts and recorders", "completion"): 0,
        ("recorders and engines", "prompt"): 0,
        ("recorders and engines", "completion"): -1,
    }
    assert not seen.clean


async def test_reconcile_is_clean_where_all_counts_agree(store: Store) -> None:
    usage = UsageStore(store, "bill")
    await usage.add_usage([row(1)], AT)
    told = {"attempts": 1, "prompt": 10, "completion": 5, "engine_prompt": 10,
            "engine_completion": 5}  # fmt: skip
    await usage.add_attempts(batch(attempt(1), final=True, **told), AT)
    assert (await usage_queries.reconcile(store, Span(AT - 1, AT + 1))).clean


async def test_retention_deletes_rows_and_keeps_the_sums(store: Store) -> None:
    usage = UsageStore(store, "bill")
    await usage.add_usage([row(1)], AT)
    await usage.add_usage([row(2)], AT + 100)
    await usage.add_attempts(batch(attempt(1)), AT)
    assert await usage.prune(AT + 50) == 3, "a row, an attempt, the totals of its engine"
    async with store.transaction() as db:
        assert (await db.execute(select(func.count()).select_from(USAGE))).scalar_one() == 1
        assert (await db.execute(select(func.count()).select_from(ATTEMPTS))).scalar_one() == 0
    assert (await sums(store))[0] == 2


async def test_export_brings_every_row_in_order_over_many_pages(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_queries, "PAGE_ROWS", 3)
    rows = [row(number, at=AT + number // 4) for number in range(10)]
    await UsageStore(store, "bill").add_usage(rows, AT)
    found = [one.usage_id async for one in usage_queries.export(store, Span(AT, AT + 2))]
    assert found == [one.usage_id for one in rows[:8]]


@pytest.mark.parametrize("width", ["1m", "1h", "1d"])
async def test_buckets_tell_usage_as_openai_does(store: Store, width: str) -> None:
    rows = [row(1, at=AT), row(2, at=AT + 1), row(3, at=AT, model="other"), row(4, at=AT + 86_400)]
    await UsageStore(store, "bill").add_usage(rows, AT)
    start = int(AT) // 86_400 * 86_400
    group = ("model", "user_id")
    query = BucketQuery(start=int(AT) // 60 * 60 if width == "1m" else start,
                        end=start + 86_400, width=width, group_by=group, limit=24)  # fmt: skip
    page = await page_of_usage(store, query)
    found = {result.model: result for bucket in page.data for result in bucket.results}
    assert found.keys() == {"guide", "other"}
    assert (found["guide"].input_tokens, found["guide"].output_tokens) == (20, 10)
    assert (found["guide"].num_model_requests, found["guide"].input_cached_tokens) == (2, 8)
    assert found["guide"].project_id is None
    assert page.has_more is (width == "1m")
