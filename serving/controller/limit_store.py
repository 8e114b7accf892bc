"""The limits' rows."""

from sqlalchemy import and_, delete, insert, select

from models.errors import NotFoundError
from serving.controller.audit import Act, tell_gateways, write
from serving.controller.store import Store
from serving.controller.tables import KEYS
from serving.controller.tenancy_tables import LIMITS, ORGANIZATIONS, PROJECTS
from serving.identities import LimitRecord
from serving.limits import LimitView, limit_id


class LimitStore:
    """All limits of one platform; every method may raise DatabaseError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def records(self, scope_id: str | None = None) -> list[LimitRecord]:
        """All limits, by scope and model; those of one scope where it is given."""
        query = select(LIMITS).order_by(LIMITS.c.scope_id, LIMITS.c.model)
        if scope_id is not None:
            query = query.where(LIMITS.c.scope_id == scope_id)
        async with self._store.transaction() as db:
            rows = (await db.execute(query)).all()
        return [
            LimitRecord(limit_id=limit_id(row.scope_id, row.model), **row._asdict()) for row in rows
        ]

    async def put(self, record: LimitRecord, act: Act) -> None:
        """Sets what a scope may use of a model, in the place of what it might before.

        Raises:
            NotFoundError: If there is no such organisation, project or key.
        """
        here = and_(LIMITS.c.scope_id == record.scope_id, LIMITS.c.model == record.model)
        async with self._store.transaction() as db:
            known = (
                select(ORGANIZATIONS.c.org_id)
                .where(ORGANIZATIONS.c.org_id == record.scope_id)
                .where(ORGANIZATIONS.c.deleted_at.is_(None))
                .union_all(
                    select(PROJECTS.c.project_id)
                    .where(PROJECTS.c.project_id == record.scope_id)
                    .where(PROJECTS.c.deleted_at.is_(None)),
                    select(KEYS.c.key_id)
                    .where(KEYS.c.key_id == record.scope_id)
                    .where(KEYS.c.revoked_at.is_(None)),
                )
            )
            if (await db.execute(known)).first() is None:
                raise NotFoundError(
                    "there is no such organisation, project or key", param="scope_id"
                )
            row = (await db.execute(select(LIMITS).where(here))).one_or_none()
            before = None
            if row is not None:
                before = LimitView.of(LimitRecord(limit_id=record.limit_id, **row._asdict()))
            await db.execute(delete(LIMITS).where(here))
            await db.execute(insert(LIMITS).values(**record.model_dump(exclude={"limit_id"})))
            await write(db, act, "limit.set", record.scope_id, before, LimitView.of(record))
            await tell_gateways(db)

    async def delete(self, scope_id: str, model: str, act: Act) -> None:
        """Lifts a limit.

        Raises:
            NotFoundError: If there is none.
        """
        here = and_(LIMITS.c.scope_id == scope_id, LIMITS.c.model == model)
        async with self._store.transaction() as db:
            row = (await db.execute(select(LIMITS).where(here))).one_or_none()
            if row is None:
                raise NotFoundError("there is no such limit")
            before = LimitRecord(limit_id=limit_id(scope_id, model), **row._asdict())
            await db.execute(delete(LIMITS).where(here))
            await write(db, act, "limit.delete", scope_id, before=LimitView.of(before))
            await tell_gateways(db)
