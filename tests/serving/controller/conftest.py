"""The world of the control loop, with a registry of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.controller.events import EventLog
from serving.controller.registry import Limits, Registry
from serving.controller.store import Store
from tests.serving.controller.world import World, settings


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'penstock.db'}"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = await Store.open(database_url)
    yield store
    await store.close()


@pytest.fixture
async def world(store: Store) -> World:
    registry = Registry(store, Limits({"cpu": 2, "h200x1": 1}, memory_gib=24.0))
    return World(registry, EventLog(store), settings=settings(pools={"cpu": 2, "h200x1": 1}))
