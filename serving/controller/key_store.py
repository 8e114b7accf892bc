"""The keys' rows: issued, changed, rotated, revoked; and as gateways see them."""

import secrets as randomness
from typing import Any

from sqlalchemy import Row, Select, and_, case, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from models.errors import BadRequestError, ConflictError, NotFoundError
from serving.controller.audit import Act, tell_gateways, write
from serving.controller.store import Store
from serving.controller.tables import KEYS
from serving.controller.tenancy_rows import json_of, models_of, moment, new_id, seconds
from serving.controller.tenancy_tables import COUNTERS, IDENTITIES, PROJECTS
from serving.controller.tenants import find_account, find_project
from serving.credentials import digest_of
from serving.identities import DEFAULT_PROJECT, KeyRecord, KeySecret, Role
from serving.tenancy import IssuedKey, KeyChange, KeyView, NewKey, Rotation

PREFIX_LENGTH = 10
MARKS = {Role.INFERENCE: "pk-"}
STAFF_MARK = "pa-"
"""Begins the keys of the platform's own people, of whatever role."""

KEPT_EXPIRED_S = 3600.0
"""Gateways hear of a key for so long after its end, so that they can say why it is refused."""


def make_key(role: Role) -> str:
    """A new random key with 240 bits: `pk-` (inference) or `pa-` (all others), 40 characters."""
    return MARKS.get(role, STAFF_MARK) + randomness.token_urlsafe(30)


def make_secret(key: str) -> KeySecret:
    """What is stored of a key's plain text."""
    salt = randomness.token_hex(16)
    # Of a short key that was given, at most the half is shown.
    prefix = key[: min(PREFIX_LENGTH, len(key) // 2)]
    return KeySecret(prefix=prefix, salt=salt, digest=digest_of(salt, key))


class KeyStore:
    """All keys of one platform; every method may raise DatabaseError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def version(self) -> int:
        """Grows with each change of what gateways have to know."""
        query = select(COUNTERS.c.value).where(COUNTERS.c.name == IDENTITIES)
        async with self._store.transaction() as db:
            return int((await db.execute(query)).scalar() or 0)

    async def records(self, at: float = 0.0) -> tuple[KeyRecord, ...]:
        """The keys that gateways shall know at a moment, by id; their lists are their projects'
        too."""
        query = (
            select(KEYS, PROJECTS.c.org_id, PROJECTS.c.models.label("project_models"))
            .join(PROJECTS, PROJECTS.c.project_id == KEYS.c.project_id, isouter=True)
            .where(KEYS.c.revoked_at.is_(None))
            .order_by(KEYS.c.key_id)
        )
        async with self._store.transaction() as db:
            rows = (await db.execute(query)).all()
        gone = at - KEPT_EXPIRED_S
        return tuple(
            _record(row) for row in rows if row.expires_at is None or row.expires_at > gone
        )

    async def put_first(self, key: KeyRecord, at: float) -> None:
        """Stores a first key in the place of the one with the same role and name, if there is."""
        project_id = DEFAULT_PROJECT if key.role is Role.INFERENCE else None
        same = and_(
            KEYS.c.role == key.role,
            KEYS.c.name == key.name,
            KEYS.c.project_id.is_not_distinct_from(project_id),
        )
        fields = key.model_dump(
            mode="json", include={"key_id", "name", "role", "prefix", "salt", "digest"}
        )
        async with self._store.transaction() as db:
            await db.execute(delete(KEYS).where(same))
            await db.execute(insert(KEYS).values(created_at=at, project_id=project_id, **fields))
            await tell_gateways(db)

    async def views(self, project_id: str | None = None) -> list[KeyView]:
        """All keys, the newest last, revoked ones too; those of one project where it is given."""
        query = _NEWEST_LAST
        if project_id is not None:
            query = query.where(KEYS.c.project_id == project_id)
        async with self._store.transaction() as db:
            rows = (await db.execute(query)).all()
        return [_view(row) for row in rows]

    async def view(self, key_id: str) -> KeyView:
        """One key.

        Raises:
            NotFoundError: If there is none of this id.
        """
        async with self._store.transaction() as db:
            return _view(await _find(db, key_id))

    async def issue(self, new: NewKey, act: Act) -> IssuedKey:
        """Makes a key; its plain text is in the answer and nowhere else.

        Raises:
            BadRequestError: If role and project do not go together, or it has expired already.
            NotFoundError: If there is no such project or service account.
        """
        project_id = new.project_id
        if new.role is Role.INFERENCE:
            project_id = project_id or DEFAULT_PROJECT
        elif project_id is not None or new.account_id is not None:
            raise BadRequestError(
                f"a key of role {new.role} belongs to the platform, not to a project",
                param="project_id",
            )
        expires_at = None
        if new.expires_at is not None:
            expires_at = seconds(new.expires_at, "expires_at")
            if expires_at <= act.at:
                raise BadRequestError("expires_at is in the past", param="expires_at")
        key = make_key(new.role)
        key_id = new_id("key")
        async with self._store.transaction() as db:
            if project_id is not None:
                await find_project(db, project_id)
            if new.account_id is not None:
                account = await find_account(db, new.account_id)
                if account.project_id != project_id:
                    raise BadRequestError(
                        "the service account is of another project", param="account_id"
                    )
            await db.execute(
                insert(KEYS).values(
                    key_id=key_id,
                    name=new.name,
                    role=new.role.value,
                    created_at=act.at,
                    project_id=project_id,
                    account_id=new.account_id,
                    models=json_of(new.models),
                    expires_at=expires_at,
                    **make_secret(key).model_dump(exclude={"expires_at"}),
                )
            )
            view = _view(await _find(db, key_id))
            await write(db, act, "key.create", key_id, after=view)
            await tell_gateways(db)
        return IssuedKey(key=view, secret=key)

    async def change(self, key_id: str, change: KeyChange, act: Act) -> KeyView:
        """Changes the fields that are given.

        Raises:
            NotFoundError: If there is none of this id.
            ConflictError: If it is revoked.
        """
        values: dict[str, str | float | None] = {}
        if change.name is not None:
            values["name"] = change.name
        if "models" in change.model_fields_set:
            values["models"] = json_of(change.models)
        if "expires_at" in change.model_fields_set:
            when = change.expires_at
            values["expires_at"] = None if when is None else seconds(when, "expires_at")
        async with self._store.transaction() as db:
            before = _view(await _find_valid(db, key_id))
            if values:
                await db.execute(update(KEYS).where(KEYS.c.key_id == key_id).values(**values))
            after = _view(await _find(db, key_id))
            await write(db, act, "key.change", key_id, before, after)
            await tell_gateways(db)
        return after

    async def rotate(self, key_id: str, rotation: Rotation, act: Act) -> IssuedKey:
        """Gives a key a new plain text; the old one is valid for the overlap, any older one not.

        Raises:
            NotFoundError: If there is none of this id.
            ConflictError: If it is revoked.
        """
        async with self._store.transaction() as db:
            row = await _find_valid(db, key_id)
            before = _view(row)
            key = make_key(Role(row.role))
            until = act.at + rotation.overlap_s
            old = KeySecret(prefix=row.prefix, salt=row.salt, digest=row.digest, expires_at=until)
            values = make_secret(key).model_dump(exclude={"expires_at"})
            values["previous"] = old.model_dump_json() if rotation.overlap_s else None
            await db.execute(update(KEYS).where(KEYS.c.key_id == key_id).values(**values))
            after = _view(await _find(db, key_id))
            await write(db, act, "key.rotate", key_id, before, after)
            await tell_gateways(db)
        return IssuedKey(key=after, secret=key)

    async def revoke(self, key_id: str, act: Act) -> None:
        """Ends a key now and for ever; done again, nothing changes.

        Raises:
            NotFoundError: If there is none of this id.
            ConflictError: If it is the last valid admin key.
        """
        async with self._store.transaction() as db:
            row = await _find(db, key_id)
            if row.revoked_at is not None:
                return
            if row.role == Role.ADMIN:
                await _keep_an_admin(db, key_id, act.at)
            before = _view(row)
            await db.execute(
                update(KEYS).where(KEYS.c.key_id == key_id).values(revoked_at=act.at, previous=None)
            )
            await write(db, act, "key.revoke", key_id, before, _view(await _find(db, key_id)))
            await tell_gateways(db)


_NEWEST_LAST: Select[Any] = select(KEYS).order_by(KEYS.c.created_at, KEYS.c.key_id)


async def _find(db: AsyncConnection, key_id: str) -> Row[Any]:
    row = (await db.execute(select(KEYS).where(KEYS.c.key_id == key_id))).one_or_none()
    if row is None:
        raise NotFoundError("there is no such key", param="key_id")
    return row


async def _find_valid(db: AsyncConnection, key_id: str) -> Row[Any]:
    row = await _find(db, key_id)
    if row.revoked_at is not None:
        raise ConflictError("the key is revoked; make a new one")
    return row


async def _keep_an_admin(db: AsyncConnection, key_id: str, at: float) -> None:
    lasts = case((KEYS.c.expires_at.is_(None), True), else_=KEYS.c.expires_at > at)
    others = select(KEYS.c.key_id).where(
        and_(KEYS.c.role == Role.ADMIN.value, KEYS.c.revoked_at.is_(None), KEYS.c.key_id != key_id)
    )
    if (await db.execute(others.where(lasts).limit(1))).one_or_none() is None:
        raise ConflictError("this is the last admin key; make another one first")


def _record(row: Row[Any]) -> KeyRecord:
    own, project = models_of(row.models), models_of(row.project_models)
    both = (
        own if project is None else project if own is None else tuple(sorted({*own} & {*project}))
    )
    return KeyRecord(
        key_id=row.key_id,
        name=row.name,
        role=Role(row.role),
        prefix=row.prefix,
        salt=row.salt,
        digest=row.digest,
        org_id=row.org_id or "",
        project_id=row.project_id or "",
        models=both,
        expires_at=row.expires_at,
        previous=None if row.previous is None else KeySecret.model_validate_json(row.previous),
    )


def _view(row: Row[Any]) -> KeyView:
    previous = None if row.previous is None else KeySecret.model_validate_json(row.previous)
    until = None if previous is None else previous.expires_at
    return KeyView(
        key_id=row.key_id,
        name=row.name,
        role=Role(row.role),
        prefix=row.prefix,
        project_id=row.project_id,
        account_id=row.account_id,
        models=models_of(row.models),
        created_at=moment(row.created_at),
        expires_at=None if row.expires_at is None else moment(row.expires_at),
        revoked_at=None if row.revoked_at is None else moment(row.revoked_at),
        overlap_until=None if until is None else moment(until),
    )
