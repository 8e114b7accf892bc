"""The registry's rows on SQLite, and its schema up and down."""

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from serving.controller.database import HEAD, DatabaseError, migrate, open_database
from serving.controller.schema import MIGRATIONS
from serving.controller.store import EVENTS_KEPT, Store, StoredEvent
from serving.controller.tables import METADATA
from tests.serving.controller.world import manifest


async def tables(url: str) -> dict[str, set[str]]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = await connection.run_sync(
            lambda sync: {
                name: {column["name"] for column in inspect(sync).get_columns(name)}
                for name in inspect(sync).get_table_names()
            }
        )
    await engine.dispose()
    return found


async def test_controllers_that_start_at_once_migrate_a_file_once(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'new.db'}"
    stores = await asyncio.gather(*(Store.open(url) for _ in range(3)))
    await asyncio.gather(*(store.close() for store in stores))


async def test_migrations_make_the_declared_tables_and_take_them_away(tmp_path: Path) -> None:
    database_url = f"sqlite+aiosqlite:///{tmp_path / 'new.db'}"
    engine = await open_database(database_url)
    found = await tables(database_url)
    declared = {table.name: {c.name for c in table.columns} for table in METADATA.sorted_tables}
    assert {name: columns for name, columns in found.items() if name in declared} == declared
    await migrate(engine, database_url, "base")
    assert (await tables(database_url)).keys() <= {"alembic_version"}
    await migrate(engine, database_url)
    assert (await tables(database_url)).keys() == {*declared, "alembic_version"}
    await engine.dispose()


def test_migrations_end_where_the_code_says() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


async def test_migrations_match_the_declared_constraints(database_url: str) -> None:
    """A database made by the migrations is one that METADATA would have made."""

    engine = await open_database(database_url)
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), METADATA)
        )
    await engine.dispose()
    assert differences == []


async def test_database_is_prepared_for_one_writer_and_many_readers(database_url: str) -> None:
    engine = await open_database(database_url)
    async with engine.connect() as connection:
        pragmas = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        ]
        with pytest.raises(IntegrityError):
            row = "INSERT INTO revisions VALUES ('nobody', 1, 0.0, '{}', '')"
            await connection.execute(text(row))
    await engine.dispose()
    assert pragmas == ["wal", 1, 5000]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite+aiosqlite:////nowhere/at/all.db", "does not answer: unable to open"),
        ("nonsense", "is not usable"),
        ("oracle+nodriver://host/db", "is not usable"),
    ],
)
async def test_database_that_cannot_be_opened_is_one_clear_error(url: str, message: str) -> None:
    with pytest.raises(DatabaseError, match=message) as caught:
        await open_database(url)
    assert caught.value.hint


async def test_database_of_a_newer_version_is_refused(database_url: str) -> None:
    engine = await open_database(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await engine.dispose()
    with pytest.raises(DatabaseError, match="cannot be migrated") as caught:
        await open_database(database_url)
    assert "newer version" in str(caught.value.hint)


async def test_database_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is not SQLite" * 100)
    with pytest.raises(DatabaseError, match="not a database"):
        await open_database(f"sqlite+aiosqlite:///{path}")


async def test_store_numbers_revisions_and_keeps_their_manifests(store: Store) -> None:
    assert await store.add_revision(manifest(), 1.0) == 1
    assert await store.add_revision(manifest(scaling={"max": 2}), 2.0) == 2
    assert await store.add_revision(manifest("other"), 3.0) == 1
    guide, other = await store.models()
    assert (guide.name, guide.created_at, guide.revision) == ("guide", 1.0, 2)
    assert [r.manifest.scaling.max for r in guide.revisions] == [1, 2]
    assert other.revisions[0].manifest == manifest("other")


async def test_store_goes_on_counting_when_a_deleted_model_returns(store: Store) -> None:
    await store.add_revision(manifest(), 1.0)
    await store.delete_model("guide")
    assert await store.models() == []
    assert await store.add_revision(manifest(), 5.0) == 2
    (guide,) = await store.models()
    assert (guide.created_at, [r.revision for r in guide.revisions]) == (5.0, [1, 2])


async def test_store_numbers_revisions_once_each_for_two_controllers(database_url: str) -> None:
    one, two = await Store.open(database_url), await Store.open(database_url)
    await one.add_revision(manifest(), 0.0)
    results = await asyncio.gather(
        *(s.add_revision(manifest(), float(i)) for i, s in enumerate((one, two) * 4)),
        return_exceptions=True,
    )
    made = [number for number in results if isinstance(number, int)]
    assert len(made) == len(set(made)) >= 1
    (guide,) = await one.models()
    assert [r.revision for r in guide.revisions] == list(range(1, guide.revision + 1))
    await one.close()
    await two.close()


async def test_store_lists_the_newest_events_last(store: Store) -> None:
    await store.add_events(
        [StoredEvent(float(i), "ready", "ab"[i % 2], None, str(i)) for i in range(6)]
    )
    assert [e.message for e in await store.events(3)] == ["3", "4", "5"]
    assert [e.message for e in await store.events(2, "a")] == ["2", "4"]
    assert await store.events(9, "nobody") == []


async def test_store_forgets_events_beyond_its_measure(store: Store) -> None:
    await store.add_events(
        [StoredEvent(0.0, "ready", None, None, str(i)) for i in range(EVENTS_KEPT + 5)]
    )
    events = await store.events(EVENTS_KEPT + 5)
    assert (len(events), events[0].message) == (EVENTS_KEPT, "5")
