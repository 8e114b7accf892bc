"""Usage and attempts in SQL: counted once, summed, resolved, forgotten; on both databases."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from serving.controller import usage_queries
from serving.controller.audit import Act
from serving.controller.cost_queries import sales
from serving.controller.cost_report import revenue_of
from serving.controller.database import migrate, open_database
from serving.controller.keys import make_record
from serving.controller.price_store import PriceStore
from serving.controller.store import Store
from serving.controller.usage_buckets import BucketQuery, page_of_usage
from serving.controller.usage_queries import Span
from serving.controller.usage_rules import UnknownRule
from serving.controller.usage_store import UsageStore
from serving.controller.usage_tables import ATTEMPTS, USAGE
from serving.identities import Role
from serving.metered import (
    AttemptBatch,
    AttemptRow,
    EngineTotals,
    Outcome,
    UsageRow,
    UsageStatus,
)
from serving.prices import NewTokenPrice
from serving.usage_views import GroupBy
from tests.metering.postgres import Postgres
from tests.serving.controller.databases import fresh_database

AT = 1_700_000_000.0
ALL_TIME = Span(0, 2e9)
ACT = Act(make_record("pa-operator", Role.ADMIN, "operator"), AT)
numbers = itertools.count()


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


async def test_unknown_usage_that_no_recorder_tells_is_settled_after_some_time(
    store: Store,
) -> None:
    usage = UsageStore(store, "bill")
    unsaid = {"known": False, "prompt": 0, "cached": 0, "completion": 0}
    lost = {"status": UsageStatus.UNKNOWN, "attempts": 0, **unsaid}  # with the machine
    await usage.add_usage(
        [
            row(1, **lost),
            row(2, **lost),
            row(3, **{**lost, "attempts": 2}),
            row(4, status=UsageStatus.CUT, **unsaid),
        ],
        AT,
    )
    await usage.add_usage([row(5, **lost)], AT + 2)
    told = [attempt(1, 9, completion=1), attempt(1, 10, completion=7), attempt(3, 1)]
    await usage.add_attempts(batch(*told), AT)
    assert await usage.settle_unknown(AT) == 0
    assert await usage.settle_unknown(AT + 1) == 3
    assert await usage.settle_unknown(AT + 1) == await usage.resolve() == 0
    columns = (USAGE.c.prompt, USAGE.c.completion, USAGE.c.known, USAGE.c.status)
    async with store.transaction() as db:
        found = await db.execute(select(*columns).order_by(USAGE.c.at))
        assert [tuple(one) for one in found] == [
            (10, 7, True, "unknown"),
            (0, 0, True, "unknown"),
            (0, 0, True, "unknown"),  # what the attempt before the last made went to nobody
            (0, 0, False, "cut"),
            (0, 0, False, "unknown"),
        ]
    assert await sums(store) == (5, 10, 4, 7)
    assert await usage_queries.unresolved(store) == {"cut": 1, "unknown": 1}


@pytest.mark.parametrize(("rule", "prompt"), [("bill", 10), ("forgive", 0)])
async def test_unknown_usage_at_a_server_elsewhere_is_its_prompt_by_the_operators_rule(
    store: Store, rule: UnknownRule, prompt: int
) -> None:
    usage = UsageStore(store, rule)
    guessed = row(1, status="unknown", cached=0, completion=0, estimated=True)
    await usage.add_usage([guessed], AT)
    assert await usage_queries.unresolved(store) == {}
    (view,) = await usage_queries.sums_by(store, GroupBy.MODEL, ALL_TIME)
    assert (view.unknown, view.prompt_tokens, view.completion_tokens) == (1, prompt, 0)
    (stored,) = [one async for one in usage_queries.export(store, ALL_TIME)]
    assert (stored.status, stored.known, stored.prompt) == ("unknown", True, prompt)
    assert stored.estimated is (prompt > 0)


async def test_price_is_charged_at_settlement_and_no_later_price_changes_it(store: Store) -> None:
    usage, prices = UsageStore(store, "bill"), PriceStore(store)
    since = datetime.fromtimestamp(AT - 10, UTC)
    first = await prices.add_tokens(NewTokenPrice(input="2", output="6", since=since), ACT)
    await usage.add_usage([row(1), row(2, known=False, completion=0, status="unknown")], AT)
    later = NewTokenPrice(input="200", output="600", since=since + timedelta(seconds=1))
    await prices.add_tokens(later, ACT)
    await prices.delete(first.price_id, ACT)
    assert await usage.add_usage([row(1)], AT) == 0
    await usage.add_attempts(batch(attempt(1), attempt(2)), AT)
    assert await usage.resolve() == 1
    async with store.transaction() as db:
        found = (await db.execute(select(USAGE.c.price).order_by(USAGE.c.at))).scalars().all()
    assert found == [50_000_000, 5_000_000_000], "10 x 2 + 5 x 6 millionths; the second came later"
    hour = int(AT // 3600)
    sold = await sales(store, hour, hour + 1, await prices.book())
    assert [(one.requests, one.prompt, one.charged) for one in sold] == [(2, 20, 5_050_000_000)]


async def test_request_without_a_price_is_charged_by_the_book_when_it_is_read(store: Store) -> None:
    usage, prices = UsageStore(store, "bill"), PriceStore(store)
    await usage.add_usage([row(1), row(2)], AT)  # as all rows were before prices were stored
    since = datetime.fromtimestamp(AT - 7200, UTC)
    await prices.add_tokens(NewTokenPrice(input="2", output="6", since=since), ACT)
    await usage.add_usage([row(3)], AT)
    hour = int(AT // 3600)
    book = await prices.book()
    charged, rest = await sales(store, hour, hour + 1, book)
    assert (charged.requests, charged.prompt, charged.charged) == (3, 10, 50_000_000)
    assert (rest.requests, rest.prompt, rest.completion, rest.charged) == (0, 20, 10, None)
    assert revenue_of(rest, book) == 100_000_000


async def test_rows_outlive_the_migration_to_stored_prices_and_back(store: Store) -> None:
    usage, prices = UsageStore(store, "bill"), PriceStore(store)
    since = datetime.fromtimestamp(AT - 7200, UTC)
    await prices.add_tokens(NewTokenPrice(input="2", output="6", since=since), ACT)
    await usage.add_usage([row(1)], AT)
    hour = int(AT // 3600)

    async def owed() -> list[int | None]:
        book = await prices.book()
        return [revenue_of(one, book) for one in await sales(store, hour, hour + 1, book)]

    assert await owed() == [50_000_000]
    engine = await open_database(store._url)
    await migrate(engine, store._url, "0008")
    await migrate(engine, store._url)
    await engine.dispose()
    (exported,) = [one async for one in usage_queries.export(store, ALL_TIME)]
    assert (exported.prompt, exported.price, exported.engine_share_s) == (10, None, None)
    assert exported.estimated is False
    assert await owed() == [50_000_000], "a row from before is priced by the book"


@pytest.mark.parametrize("first", ["usage", "attempts"])
async def test_request_has_its_share_of_the_engines_time_whoever_tells_first(
    store: Store, first: str
) -> None:
    usage = UsageStore(store, "bill")
    told = batch(attempt(1, 1, share_s=0.5), attempt(1, 2, share_s=0.25), attempt(2))
    if first == "attempts":
        await usage.add_attempts(told, AT)
    await usage.add_usage([row(1, attempts=2), row(2)], AT)
    if first == "usage":
        await usage.add_attempts(told, AT)
    shares = select(USAGE.c.engine_share_s).order_by(USAGE.c.at)
    async with store.transaction() as db:
        assert (await db.execute(shares)).scalars().all() == [0.75, None]
        await db.execute(update(USAGE).values(engine_share_s=None))  # as if neither had seen both
    assert await usage.share(AT - 1) == 1
    assert await usage.share(AT + 1) == 0
    async with store.transaction() as db:
        assert (await db.execute(shares)).scalars().all() == [0.75, None]


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
