"""Shares of engines' time on PostgreSQL, where two who tell of one request go side by side."""

import asyncio

from sqlalchemy import select, update

from serving.controller.store import Store
from serving.controller.usage_store import UsageStore
from serving.controller.usage_tables import USAGE
from serving.metered import AttemptBatch
from tests.serving.controller.databases import fresh_database, postgres
from tests.serving.controller.test_usage_store import AT, attempt, row

REQUESTS = 20


def told(engine_id: str, n: int, share_s: float) -> AttemptBatch:
    rows = tuple(attempt(number, n, share_s=share_s) for number in range(REQUESTS))
    return AttemptBatch(engine_id=engine_id, rows=rows)


async def shares(store: Store) -> set[float | None]:
    async with store.transaction() as db:
        return set((await db.execute(select(USAGE.c.engine_share_s))).scalars())


async def test_two_hosts_may_tell_of_one_request_at_once() -> None:
    with postgres() as server:
        store = await Store.open(await fresh_database(server, "shares"))
        usage = UsageStore(store, "bill")
        await usage.add_usage([row(number, attempts=3) for number in range(REQUESTS)], AT)
        hosts = [told("e1", 1, 0.5), told("e2", 2, 0.25), told("e3", 3, 0.125)]
        await asyncio.gather(*(usage.add_attempts(one, AT) for one in hosts))
        assert await shares(store) == {0.875}
        async with store.transaction() as db:
            await db.execute(update(USAGE).values(engine_share_s=0.5))  # as if it had missed some
        assert await usage.share(AT - 1) == REQUESTS
        assert await usage.share(AT - 1) == 0
        assert await shares(store) == {0.875}
        await store.close()
