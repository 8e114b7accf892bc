"""Events on their way to the store."""

import pytest
from sqlalchemy import text

from serving.controller.database import DatabaseError, open_database
from serving.controller.events import PENDING_MAX, EventLog
from serving.controller.store import Store


async def test_events_wait_for_a_database_that_is_away(store: Store, database_url: str) -> None:
    engine = await open_database(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE events RENAME TO away"))
    events = EventLog(store)
    for number in range(PENDING_MAX + 3):
        events.record("ready", str(number), model="guide")
    with pytest.raises(DatabaseError):
        await events.flush()
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO events"))
    await engine.dispose()
    await events.flush()
    await events.flush()
    written = await store.events(PENDING_MAX + 3)
    assert [e.message for e in written] == [str(n) for n in range(3, PENDING_MAX + 3)]
