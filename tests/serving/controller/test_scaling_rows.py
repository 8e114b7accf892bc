"""The autoscaler's rows on a PostgreSQL, where types are strict: written, read, dropped."""

from collections.abc import AsyncIterator

import pytest

from autoscaler.learning import Steps
from autoscaler.snapshot import Memory
from serving.controller import scaling_rows
from serving.controller.capacities import Kind
from serving.controller.recorded import DemandSecond
from serving.controller.store import Store
from tests.metering.postgres import Postgres
from tests.serving.controller.databases import fresh_database
from tests.serving.controller.test_scaling_log import change


@pytest.fixture
async def strict(server: Postgres) -> AsyncIterator[Store]:
    store = await Store.open(await fresh_database(server, "scaling"))
    yield store
    await store.close()


async def test_rows_come_back_from_a_strict_database(strict: Store) -> None:
    await scaling_rows.add_decisions(strict, [("guide", change(2)), ("guide", change(1))])
    kept = await scaling_rows.read_decisions(strict, "guide", 1)
    assert kept == [change(1)]
    memory = Memory(target=1, busy_at_s=-5.0, at_s=0.0, peaks=((-5.0, 1),))
    await scaling_rows.put_memories(strict, {"guide": memory}, 1e9)
    await scaling_rows.put_memories(strict, {"guide": memory, "other": memory}, 1e9 + 0.5)
    await scaling_rows.forget_models(strict, ["guide"])
    assert await scaling_rows.read_memories(strict) == {"guide": (1e9 + 0.5, memory)}
    kind, steps = Kind("guide", 1, "cpu"), Steps(100, 100, 100, 1.0, 1.0, 5, 500, 0, 0.1)
    await scaling_rows.put_capacities(strict, {kind: (8, steps)}, 1e9)
    assert await scaling_rows.read_capacities(strict) == {kind: (8, steps)}
    second = DemandSecond("guide", 1_000_000_000, 2, 100, 1, 50)
    await scaling_rows.add_demand(strict, [second], 1e9 + 0.25)
    await scaling_rows.add_demand(strict, [second], 1e9 + 1.25)
    found = await scaling_rows.read_demand(strict, "guide", 1e9 - 0.75)
    assert found == [DemandSecond("guide", 1_000_000_000, 4, 200, 2, 100)]
