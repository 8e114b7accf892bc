"""The audit log: who did what and when, with the state before and after, and no secret."""

import json
from dataclasses import dataclass

from pydantic import BaseModel
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.controller.store import Note, Store
from serving.controller.tenancy_tables import AUDIT, COUNTERS, IDENTITIES, NAME_LENGTH
from serving.identities import KeyRecord, Role

MAX_STATE_CHARS = 16_000


@dataclass(frozen=True, slots=True)
class Act:
    """An operator's deed: by whom, and when."""

    actor: KeyRecord
    at: float  # Unix seconds
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log."""

    at: float
    actor_id: str
    actor_name: str
    role: Role
    action: str
    subject_id: str
    request_id: str
    before: str | None
    after: str | None


async def write(
    db: AsyncConnection,
    act: Act,
    action: str,
    subject_id: str,
    before: BaseModel | None = None,
    after: BaseModel | None = None,
) -> None:
    """Adds a line within the transaction that makes the change: both stand, or neither does."""
    await db.execute(
        insert(AUDIT).values(
            at=act.at,
            actor_id=act.actor.key_id,
            actor_name=act.actor.name[:NAME_LENGTH],
            role=act.actor.role.value,
            action=action,
            subject_id=subject_id[:128],
            request_id=act.request_id[:128],
            before=_state(before),
            after=_state(after),
        )
    )


def noting(
    act: Act,
    action: str,
    subject_id: str,
    before: BaseModel | None = None,
    after: BaseModel | None = None,
) -> Note:
    """`write`, for a change that somebody else makes."""

    async def note(db: AsyncConnection) -> None:
        await write(db, act, action, subject_id, before, after)

    return note


async def tell_gateways(db: AsyncConnection) -> None:
    """Notes within a transaction that gateways have to hear of it."""
    await db.execute(
        update(COUNTERS).where(COUNTERS.c.name == IDENTITIES).values(value=COUNTERS.c.value + 1)
    )


async def entries(store: Store, limit: int, subject_id: str | None = None) -> list[Entry]:
    """The newest lines, newest last; those about one thing where it is given.

    Raises:
        DatabaseError: If the database does not answer.
    """
    query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
    if subject_id is not None:
        query = query.where(AUDIT.c.subject_id == subject_id)
    async with store.transaction() as db:
        rows = (await db.execute(query)).all()
    return [
        Entry(
            at=row.at,
            actor_id=row.actor_id,
            actor_name=row.actor_name,
            role=Role(row.role),
            action=row.action,
            subject_id=row.subject_id,
            request_id=row.request_id,
            before=row.before,
            after=row.after,
        )
        for row in reversed(rows)
    ]


def _state(resource: BaseModel | None) -> str | None:
    if resource is None:
        return None
    return json.dumps(resource.model_dump(mode="json"), ensure_ascii=False)[:MAX_STATE_CHARS]
