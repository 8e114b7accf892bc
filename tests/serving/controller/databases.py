"""The databases that SQL is tested on: SQLite, and a PostgreSQL where one is installed."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.metering.postgres import USER, Postgres, obstacle, running


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that runs; skips the test with a reason where none can."""
    if (reason := obstacle()) is not None:
        pytest.skip(reason)
    # Each new database is hundreds of files, and no test here pulls the plug.
    with running(durable=False) as server:
        yield server


async def fresh_database(server: Postgres, name: str) -> str:
    """The URL of a new, empty database on the server."""
    engine = create_async_engine(server.url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f'CREATE DATABASE "{name}"'))
    await engine.dispose()
    return f"postgresql+asyncpg://{USER}@127.0.0.1:{server.port}/{name}"
