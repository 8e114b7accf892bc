"""Opens the registry's database and brings its schema up to date."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy import Connection, event, inspect, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from models.errors import UnavailableError

HEAD = "0005"
"""The newest migration; a database that has it is opened without looking further."""
BUSY_TIMEOUT_S = 5.0


class DatabaseError(UnavailableError):
    """The registry's database cannot be opened, or does not answer."""

    code = "database_unavailable"


async def open_database(url: str) -> AsyncEngine:
    """Connects, migrates to the newest schema, and returns the engine; the caller disposes it.

    Raises:
        DatabaseError: If the database cannot be opened or migrated, with a hint why.
    """
    with translated(url):
        engine = _make_engine(url)
        if engine.url.get_backend_name() == "sqlite" and engine.url.database:
            await asyncio.to_thread(_try_file, engine.url.database)
    try:
        await migrate(engine, url)
    except BaseException:
        await engine.dispose()
        raise
    return engine


async def migrate(engine: AsyncEngine, url: str, revision: str = "head") -> None:
    """Brings the schema to `revision`, up or down (`base`: an empty database).

    Raises:
        DatabaseError: If the database cannot be opened or was written by a newer version.
    """
    with translated(url):
        async with asyncio.timeout(30), engine.begin() as connection:
            await connection.run_sync(_migrate, revision)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turns the database's own exceptions into DatabaseError; its URL shows no password."""
    try:
        yield
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as exc:
        raise DatabaseError(
            f"PENSTOCK_DATABASE_URL is not usable: {_first_line(exc)}",
            hint="as sqlite+aiosqlite:////var/lib/penstock/penstock.db or "
            "postgresql+asyncpg://user@server/penstock (with the extra `postgres`)",
        ) from exc
    except (SQLAlchemyError, OSError, sqlite3.Error) as exc:
        cause = getattr(exc, "orig", None) or exc
        raise DatabaseError(
            f"the database {_shown(url)} does not answer: {_first_line(cause)}",
            hint="check that its folder exists and is writable, or that the server is up",
        ) from exc


def _make_engine(url: str) -> AsyncEngine:
    if not url.startswith("sqlite"):
        return create_async_engine(url, pool_pre_ping=True, hide_parameters=True)
    # Few, long-lived connections: WAL lets one write while others read.
    engine = create_async_engine(
        url, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S}
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _try_file(path: str) -> None:
    """Opens the file once without aiosqlite, whose thread outlives a connection that failed."""
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        connection.execute("PRAGMA schema_version")


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    cursor.close()


def _migrate(connection: Connection, revision: str) -> None:
    if revision == "head" and _version(connection) == HEAD:
        return
    from serving.controller.schema import migrate_to

    migrate_to(connection, revision)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar()
    return version


def _shown(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)


def _first_line(exc: BaseException) -> str:
    return (str(exc) or type(exc).__name__).splitlines()[0]
