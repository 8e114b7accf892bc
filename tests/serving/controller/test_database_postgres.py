"""The registry on a real PostgreSQL: its schema up and down, and a server that is killed."""

import asyncio
from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from serving.controller import database
from serving.controller.database import DatabaseError, migrate, open_database
from serving.controller.store import Store, StoredEvent
from serving.controller.tables import METADATA
from tests.metering.postgres import Postgres
from tests.serving.controller.databases import fresh_database, postgres
from tests.serving.controller.world import manifest


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


def names(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_migrations_go_up_and_down_on_postgresql(server: Postgres) -> None:
    url = await fresh_database(server, "migrations")
    engine = await open_database(url)
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), METADATA)
        )
    assert differences == []
    await migrate(engine, url, "base")
    async with engine.connect() as connection:
        assert await connection.run_sync(names) <= {"alembic_version"}
    await migrate(engine, url)
    async with engine.connect() as connection:
        assert await connection.run_sync(names) == {*METADATA.tables, "alembic_version"}
    await engine.dispose()


async def test_controllers_that_start_at_once_migrate_once(server: Postgres) -> None:
    url = await fresh_database(server, "together")
    stores = await asyncio.gather(*(Store.open(url) for _ in range(3)))
    await asyncio.gather(*(store.close() for store in stores))


async def test_registry_works_on_postgresql(server: Postgres) -> None:
    store = await Store.open(await fresh_database(server, "registry"))
    await store.add_revision(manifest(), 1.0)
    await store.add_revision(manifest(scaling={"max": 2}), 2.0)
    await store.add_events([StoredEvent(1.0, "deployed", "guide", None, "first")])
    (model,) = await store.models()
    assert (model.revision, len(model.revisions)) == (2, 2)
    assert [event.message for event in await store.events(10)] == ["first"]
    await store.close()


async def test_store_says_so_while_its_server_is_dead_and_goes_on_afterwards(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await fresh_database(server, "killed")
    store = await Store.open(url)
    server.kill()
    try:
        with pytest.raises(DatabaseError, match="does not answer"):
            await store.models()
        monkeypatch.setattr(database, "OPEN_PATIENCE_S", 0.0)
        with pytest.raises(DatabaseError, match="does not answer"):
            await Store.open(url)
        monkeypatch.undo()
        waiting = asyncio.create_task(Store.open(url))
    finally:
        await asyncio.to_thread(server.start)
    assert await store.models() == []
    await (await waiting).close()
    await store.close()
