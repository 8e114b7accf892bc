"""What becomes of usage by itself."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from serving.controller import usage_keeper, usage_queries
from serving.controller.store import Store
from serving.controller.usage_keeper import UNTOLD_S, UsageKeeper
from serving.controller.usage_store import UsageStore
from serving.metered import UsageStatus
from tests.serving.controller.test_usage_store import row


async def test_keeper_settles_what_no_recorder_tells_any_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_keeper, "RESOLVE_INTERVAL_S", 0.01)
    now = time.time()
    usage = UsageStore(store, "bill")
    lost = {"status": UsageStatus.UNKNOWN, "known": False, "attempts": 0}
    await usage.add_usage([row(1, **lost)], now - UNTOLD_S - 1)
    await usage.add_usage([row(2, **lost)], now)
    stop = asyncio.Event()
    keeper = UsageKeeper(store, usage, 400.0, CollectorRegistry())
    working = asyncio.create_task(keeper.run(stop))
    async with asyncio.timeout(30):
        while await usage_queries.unresolved(store) != {"unknown": 1}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    stop.set()
    await working
