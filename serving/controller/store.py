"""The registry's rows: models, revisions, events. Knows no rule of the platform."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from models.errors import ConflictError
from models.manifest import Manifest
from serving.controller.database import open_database, translated
from serving.controller.leader_fence import Check, guard_writes
from serving.controller.tables import EVENTS, MODELS, REVISIONS

EVENTS_KEPT = 10_000

Note = Callable[[AsyncConnection], Awaitable[None]]
"""Writes what belongs to a change, within its transaction: both stand, or neither does."""


@dataclass(frozen=True, slots=True)
class StoredRevision:
    """One immutable manifest of a model."""

    model: str
    revision: int
    created_at: float  # Unix seconds
    manifest: Manifest
    author: str = ""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that is not deleted, with all its revisions, oldest first."""

    name: str
    created_at: float
    revision: int
    revisions: tuple[StoredRevision, ...]


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """Something that happened."""

    at: float  # Unix seconds
    kind: str
    model: str | None
    engine_id: str | None
    message: str


class Store:
    """Reads and writes rows; every method may raise DatabaseError."""

    def __init__(self, engine: AsyncEngine, url: str) -> None:
        self._engine = engine
        self._url = url

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connects and migrates.

        Raises:
            DatabaseError: If that is not possible, with a hint why.
        """
        return cls(await open_database(url), url)

    def guard(self, check: Check) -> None:
        """Has `check` called within each transaction that writes, before its first write."""
        guard_writes(self._engine, check)

    async def close(self) -> None:
        """Closes all connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, for modules that own tables of their own."""
        with translated(self._url):
            async with self._engine.begin() as connection:
                yield connection

    # --- models -------------------------------------------------------------------------------

    async def models(self) -> list[StoredModel]:
        """All models that are not deleted, by name."""
        async with self.transaction() as db:
            models = (await db.execute(select(MODELS).where(~MODELS.c.deleted))).all()
            rows = (
                await db.execute(
                    select(REVISIONS)
                    .join(MODELS, MODELS.c.name == REVISIONS.c.model)
                    .where(~MODELS.c.deleted)
                    .order_by(REVISIONS.c.model, REVISIONS.c.revision)
                )
            ).all()
        revisions: dict[str, list[StoredRevision]] = {}
        for row in rows:
            manifest = Manifest.model_validate_json(row.manifest)
            stored = StoredRevision(row.model, row.revision, row.created_at, manifest, row.author)
            revisions.setdefault(row.model, []).append(stored)
        return [
            StoredModel(row.name, row.created_at, row.revision, tuple(revisions[row.name]))
            for row in sorted(models, key=lambda row: str(row.name))
        ]

    async def add_revision(
        self, manifest: Manifest, at: float, author: str = "", note: Note | None = None
    ) -> int:
        """Makes the manifest the model's current revision and returns its number.

        A deleted model of that name comes back with a new time of creation; numbers go on.

        Raises:
            ConflictError: If somebody else added a revision at the same moment.
        """
        name = manifest.name
        async with self.transaction() as db:
            row = (await db.execute(select(MODELS).where(MODELS.c.name == name))).one_or_none()
            if row is None:
                number = 1
                await db.execute(
                    insert(MODELS).values(name=name, created_at=at, revision=1, deleted=False)
                )
            else:
                number = row.revision + 1
                unchanged = and_(MODELS.c.name == name, MODELS.c.revision == row.revision)
                result = await db.execute(
                    update(MODELS)
                    .where(unchanged)
                    .values(
                        revision=number,
                        deleted=False,
                        created_at=at if row.deleted else row.created_at,
                    )
                )
                if result.rowcount != 1:
                    raise ConflictError(f"{name} was deployed by somebody else just now")
            await db.execute(
                insert(REVISIONS).values(
                    model=name,
                    revision=number,
                    created_at=at,
                    # What a profile may set must still be unset when it is read back.
                    manifest=manifest.model_dump_json(exclude_unset=manifest.profile is not None),
                    author=author[:128],
                )
            )
            if note is not None:
                await note(db)
        return number

    async def delete_model(self, name: str, note: Note | None = None) -> None:
        """Marks a model as deleted; its revisions stay."""
        async with self.transaction() as db:
            await db.execute(update(MODELS).where(MODELS.c.name == name).values(deleted=True))
            if note is not None:
                await note(db)

    # --- events -------------------------------------------------------------------------------

    async def add_events(self, events: Sequence[StoredEvent]) -> None:
        """Appends events and drops those beyond the newest EVENTS_KEPT."""
        if not events:
            return
        async with self.transaction() as db:
            await db.execute(
                insert(EVENTS),
                [
                    {
                        "at": event.at,
                        "kind": event.kind,
                        "model": event.model,
                        "engine_id": event.engine_id,
                        "message": event.message,
                    }
                    for event in events
                ],
            )
            newest = (await db.execute(select(func.max(EVENTS.c.id)))).scalar_one()
            await db.execute(delete(EVENTS).where(EVENTS.c.id <= newest - EVENTS_KEPT))

    async def events(self, limit: int, model: str | None = None) -> list[StoredEvent]:
        """The newest events, at most `limit`, newest last."""
        query = select(EVENTS).order_by(EVENTS.c.id.desc()).limit(limit)
        if model is not None:
            query = query.where(EVENTS.c.model == model)
        async with self.transaction() as db:
            rows = (await db.execute(query)).all()
        return [
            StoredEvent(row.at, row.kind, row.model, row.engine_id, row.message)
            for row in reversed(rows)
        ]
