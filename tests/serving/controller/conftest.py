"""The world of the control loop, with a registry of its own."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from serving.controller.events import EventLog
from serving.controller.registry import Limits, Registry
from serving.controller.store import Store
from tests.metering.postgres import Postgres
from tests.serving.controller.databases import postgres
from tests.serving.controller.world import World, settings


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry, made once: each test gets a copy."""
    path = tmp_path_factory.mktemp("registry") / "penstock.db"

    async def make() -> None:
        await (await Store.open(f"sqlite+aiosqlite:///{path}")).close()

    asyncio.run(make())
    return path


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A PostgreSQL for all who leave it alive; each takes databases of names of its own."""
    with postgres() as running:
        yield running


@pytest.fixture
def database_url(tmp_path: Path, migrated: Path) -> str:
    path = tmp_path / "penstock.db"
    shutil.copy(migrated, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = await Store.open(database_url)
    yield store
    await store.close()


@pytest.fixture
async def world(store: Store) -> World:
    registry = Registry(store, Limits({"cpu": 2, "h200x1": 1}, memory_gib=24.0))
    return World(registry, EventLog(store), settings=settings(pools={"cpu": 2, "h200x1": 1}))
