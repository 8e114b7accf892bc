"""Opens the registry's database and brings its schema up to date."""

import asyncio
import fcntl
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, event, inspect, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from models.errors import UnavailableError
from serving.logs import get_logger

HEAD = "0010"
"""The newest migration; a database that has it is opened without looking further."""
BUSY_TIMEOUT_S = 5.0

POOL_SIZE = 5
POOL_OVERFLOW = 10
POOL_TIMEOUT_S = 5.0
"""How long a request waits for a connection of PostgreSQL before it is answered 503."""
RECYCLE_S = 1800.0
CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 30.0

OPEN_PATIENCE_S = 30.0
"""How long the start waits for a server that is not up yet."""
OPEN_RETRY_S = 0.5

MIGRATION_LOCK = 7_364_251
"""PostgreSQL's advisory lock under which one of several controllers migrates; any number."""


class DatabaseError(UnavailableError):
    """The registry's database cannot be opened, or does not answer."""

    code = "database_unavailable"


log = get_logger(__name__)


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
        await _migrate_patiently(engine, url)
    except BaseException:
        await engine.dispose()
        raise
    return engine


async def _migrate_patiently(engine: AsyncEngine, url: str) -> None:
    ends_s = time.monotonic() + (0 if url.startswith("sqlite") else OPEN_PATIENCE_S)
    while True:
        try:
            return await migrate(engine, url)
        except DatabaseError as exc:
            if time.monotonic() >= ends_s or not _is_absence(exc.__cause__):
                raise
            log.warning("database_awaited", error=str(exc))
            await asyncio.sleep(OPEN_RETRY_S)


async def migrate(engine: AsyncEngine, url: str, revision: str = "head") -> None:
    """Brings the schema to `revision`, up or down (`base`: an empty database).

    Raises:
        DatabaseError: If the database cannot be opened or was written by a newer version.
    """
    with translated(url):
        async with asyncio.timeout(30), _alone(engine), engine.begin() as connection:
            await connection.run_sync(_migrate, revision)


@asynccontextmanager
async def _alone(engine: AsyncEngine) -> AsyncIterator[None]:
    """Keeps controllers that migrate the same SQLite file apart, by a lock on its folder."""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or not path or path == ":memory:":
        yield
        return
    folder = os.open(Path(path).parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.to_thread(fcntl.flock, folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


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
    except _failures() as exc:
        cause = getattr(exc, "orig", None) or exc
        raise DatabaseError(
            f"the database {_shown(url)} does not answer: {_first_line(cause)}",
            hint="check that its folder exists and is writable, or that the server is up",
        ) from exc


def _failures() -> tuple[type[Exception], ...]:
    """All that a database, or the way to it, raises."""
    return (SQLAlchemyError, OSError, sqlite3.Error, *_server_errors())


def _server_errors() -> tuple[type[Exception], ...]:
    """What PostgreSQL's driver raises past SQLAlchemy; it is not imported where nobody uses it."""
    driver = sys.modules.get("asyncpg")
    return () if driver is None else (driver.PostgresError, driver.InterfaceError)


def _is_absence(cause: BaseException | None) -> bool:
    """Whether it is what a server that is down, or just starting, looks like."""
    if isinstance(cause, DBAPIError):  # of the class itself: asyncpg's "is starting up"
        return type(cause) is DBAPIError or isinstance(cause, OperationalError | InterfaceError)
    return isinstance(cause, (OSError, *_server_errors()))


def _make_engine(url: str) -> AsyncEngine:
    if not url.startswith("sqlite"):
        return create_async_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=POOL_TIMEOUT_S,
            pool_recycle=RECYCLE_S,
            connect_args={"timeout": CONNECT_TIMEOUT_S, "command_timeout": COMMAND_TIMEOUT_S},
        )
    # Few, long-lived connections: WAL lets one write while others read.
    engine = create_async_engine(
        url, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S}
    )
    event.listen(engine.sync_engine, "connect", prepare_sqlite)
    return engine


def _try_file(path: str) -> None:
    """Opens the file once without aiosqlite, whose thread outlives a connection that failed."""
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        connection.execute("PRAGMA schema_version")


def prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """What each new connection of SQLite is told."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # A gateway forgets usage that we confirmed, so that it has to outlive the machine.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    cursor.close()


def _migrate(connection: Connection, revision: str) -> None:
    if revision == "head" and _version(connection) == HEAD:
        return
    from serving.controller.schema import migrate_to

    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATION_LOCK}
        )
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
