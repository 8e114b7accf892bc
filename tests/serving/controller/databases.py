"""The databases that SQL is tested on: SQLite, and a PostgreSQL where one is installed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.metering.postgres import USER, Postgres, obstacle


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that runs; skips the test with a reason where none can."""
    if (reason := obstacle()) is not None:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
    folder.chmod(0o755)  # its user has to get in
    server = Postgres(folder / "pg")
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


async def fresh_database(server: Postgres, name: str) -> str:
    """The URL of a new, empty database on the server."""
    engine = create_async_engine(server.url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f'CREATE DATABASE "{name}"'))
    await engine.dispose()
    return f"postgresql+asyncpg://{USER}@127.0.0.1:{server.port}/{name}"
