"""The lease and the fence on both databases: one holder at a time, no write of an earlier one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import update

from serving.controller.leader import Take, decide
from serving.controller.leader_fence import NotLeaderError, holder_of, nobody
from serving.controller.leader_lease import LeaseRow
from serving.controller.leader_tables import LEADERSHIP
from serving.controller.store import Store, StoredEvent
from tests.metering.postgres import Postgres
from tests.serving.controller.databases import fresh_database

LONG_S = 3600.0
EVENT = StoredEvent(1.0, "deployed", "guide", None, "first")


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, database_url: str) -> str:
    if request.param == "sqlite":
        return database_url
    name = f"lease-{request.node.name}"[:60]
    url = await fresh_database(request.getfixturevalue("server"), name)
    await (await Store.open(url)).close()
    return url


@pytest.fixture
async def row(url: str) -> AsyncIterator[LeaseRow]:
    row = LeaseRow.at(url, 10.0)
    yield row
    await row.aclose()


async def expire(url: str) -> None:
    """The leader has not renewed for long."""
    store = await Store.open(url)
    async with store.transaction() as db:
        await db.execute(update(LEADERSHIP).values(expires_at=1.0))
    await store.close()


async def test_lease_is_taken_once_and_only_after_it_has_run_out(url: str, row: LeaseRow) -> None:
    assert await row.take(0, "a", "http://a", LONG_S) == 1
    assert await row.take(0, "b", "http://b", LONG_S) is None  # it was seen before
    assert await row.take(1, "b", "http://b", LONG_S) is None  # it runs
    lease, now = await row.look()
    assert (lease.holder, lease.url, lease.token) == ("a", "http://a", 1)
    assert lease.expires_at - now > LONG_S / 2
    await expire(url)
    lease, now = await row.look()
    assert decide(lease, now) == Take(1)
    assert await row.take(1, "b", "http://b", LONG_S) == 2


async def test_lease_that_runs_out_at_once_is_free_by_the_databases_own_clock(
    row: LeaseRow,
) -> None:
    assert await row.take(0, "a", "http://a", 0.0) == 1
    lease, now = await row.look()
    assert decide(lease, now) == Take(1)


async def test_lease_is_renewed_by_its_holder_even_late_but_never_after_another_took_it(
    url: str, row: LeaseRow
) -> None:
    await row.take(0, "a", "http://a", 0.0)
    assert await row.renew(1, LONG_S)
    lease, now = await row.look()
    assert lease.runs(now)
    await expire(url)
    await row.take(1, "b", "http://b", LONG_S)
    assert not await row.renew(1, LONG_S)
    await row.give_back(1)
    assert (await row.look())[0].runs(now)


async def test_lease_that_is_given_back_is_free(row: LeaseRow) -> None:
    await row.take(0, "a", "http://a", LONG_S)
    await row.give_back(1)
    assert await row.take(1, "b", "http://b", LONG_S) == 2


async def test_of_many_that_ask_at_once_one_gets_the_lease(url: str, row: LeaseRow) -> None:
    rivals = [LeaseRow.at(url, 10.0) for _ in range(4)]
    answers = await asyncio.gather(*(r.take(0, str(i), "", LONG_S) for i, r in enumerate(rivals)))
    assert sorted(answers, key=bool) == [None, None, None, 1]
    for rival in rivals:
        await rival.aclose()


async def test_writes_of_a_leader_pass_until_the_lease_is_anothers(url: str, row: LeaseRow) -> None:
    await row.take(0, "a", "http://a", LONG_S)
    lost: list[str] = []
    store = await Store.open(url)
    store.guard(holder_of(1, LONG_S, lambda: lost.append("lost")))
    for _ in range(2):  # on one connection, as the pool hands it out
        await store.add_events([EVENT])
    await row.renew(1, LONG_S)
    await store.add_events([EVENT])
    await row.give_back(1)
    await row.take(1, "b", "http://b", LONG_S)
    for _ in range(2):
        with pytest.raises(NotLeaderError):
            await store.add_events([EVENT])
    assert lost == ["lost", "lost"]
    assert len(await store.events(10)) == 3  # reads go on
    await store.close()


async def test_takeover_waits_for_a_transaction_that_the_leader_has_begun(
    url: str, row: LeaseRow
) -> None:
    await row.take(0, "a", "http://a", 0.0)
    store = await Store.open(url)
    store.guard(holder_of(1, LONG_S, lambda: None))
    async with store.transaction() as db:
        await db.execute(LEADERSHIP.update().values(url="http://a/changed"))
        rival = asyncio.create_task(row.take(1, "b", "http://b", LONG_S))
        assert await asyncio.wait({rival}, timeout=0.2) == (set(), {rival})
    assert await rival == 2
    await store.close()


async def test_standby_reads_and_writes_nothing(url: str) -> None:
    store = await Store.open(url)
    store.guard(nobody)
    assert await store.events(10) == []
    with pytest.raises(NotLeaderError, match="standby"):
        await store.add_events([EVENT])
    await store.close()


async def test_transaction_of_a_leader_that_stands_still_is_ended_after_a_lease(
    server: Postgres,
) -> None:
    url = await fresh_database(server, "standstill")
    store = await Store.open(url)
    row = LeaseRow.at(url, 10.0)
    await row.take(0, "a", "http://a", 0.0)
    store.guard(holder_of(1, 0.2, lambda: None))
    with pytest.raises(Exception, match=r"terminat|closed|does not answer"):  # by the server
        async with store.transaction() as db:
            await db.execute(LEADERSHIP.update().values(url="http://late"))
            assert await row.take(1, "b", "http://b", LONG_S) == 2
            await db.execute(LEADERSHIP.update().values(url="http://late"))
    assert (await row.look())[0].url == "http://b"
    await row.aclose()
    await store.close()
