"""Organisations, projects and service accounts: their rows and their rules."""

from typing import Any

from sqlalchemy import Row, Table, and_, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from models.errors import ConflictError, NotFoundError
from serving.controller.audit import Act, tell_gateways, write
from serving.controller.store import Store
from serving.controller.tables import KEYS
from serving.controller.tenancy_rows import json_of, models_of, moment, new_id
from serving.controller.tenancy_tables import ACCOUNTS, ORGANIZATIONS, PROJECTS
from serving.identities import DEFAULT_ORG, DEFAULT_PROJECT
from serving.tenancy import AccountView, NewAccount, NewProject, OrgView, ProjectChange, ProjectView

Values = dict[str, str | float | None]


class Tenants:
    """All tenants of one platform; every method may raise DatabaseError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- organisations ------------------------------------------------------------------------

    async def orgs(self) -> list[OrgView]:
        """All organisations, by name."""
        query = select(ORGANIZATIONS).where(ORGANIZATIONS.c.deleted_at.is_(None))
        async with self._store.transaction() as db:
            rows = (await db.execute(query.order_by(ORGANIZATIONS.c.name))).all()
        return [_org(row) for row in rows]

    async def add_org(self, name: str, act: Act) -> OrgView:
        """Makes an organisation.

        Raises:
            ConflictError: If there is one of this name.
        """
        view = OrgView(org_id=new_id("org"), name=name, created_at=moment(act.at))
        async with self._store.transaction() as db:
            row: Values = {"org_id": view.org_id, "name": name, "created_at": act.at}
            await _insert(db, ORGANIZATIONS, row, f"an organisation {name!r} exists already")
            await write(db, act, "org.create", view.org_id, after=view)
        return view

    async def delete_org(self, org_id: str, act: Act) -> None:
        """Deletes an organisation with its projects; their keys are revoked.

        Raises:
            NotFoundError: If there is none of this id.
            ConflictError: If it is the default one.
        """
        if org_id == DEFAULT_ORG:
            raise ConflictError("the default organisation cannot be deleted")
        async with self._store.transaction() as db:
            row = await find_org(db, org_id)
            projects = (
                await db.execute(
                    select(PROJECTS.c.project_id).where(
                        and_(PROJECTS.c.org_id == org_id, PROJECTS.c.deleted_at.is_(None))
                    )
                )
            ).scalars()
            for project_id in list(projects):
                await _end_project(db, project_id, act)
            await db.execute(
                update(ORGANIZATIONS)
                .where(ORGANIZATIONS.c.org_id == org_id)
                .values(deleted_at=act.at)
            )
            await write(db, act, "org.delete", org_id, before=_org(row))
            await tell_gateways(db)

    # --- projects -----------------------------------------------------------------------------

    async def projects(self, org_id: str | None = None) -> list[ProjectView]:
        """All projects by organisation and name; those of one organisation where it is given."""
        query = _PROJECTS.order_by(ORGANIZATIONS.c.name, PROJECTS.c.name)
        if org_id is not None:
            query = query.where(PROJECTS.c.org_id == org_id)
        async with self._store.transaction() as db:
            rows = (await db.execute(query)).all()
        return [_project(row) for row in rows]

    async def add_project(self, new: NewProject, act: Act) -> ProjectView:
        """Makes a project.

        Raises:
            NotFoundError: If there is no such organisation.
            ConflictError: If it has a project of this name.
        """
        project_id = new_id("proj")
        async with self._store.transaction() as db:
            await find_org(db, new.org_id)
            row: Values = {
                "project_id": project_id,
                "org_id": new.org_id,
                "name": new.name,
                "models": json_of(new.models),
                "created_at": act.at,
            }
            await _insert(db, PROJECTS, row, f"a project {new.name!r} exists already")
            view = _project(await find_project(db, project_id))
            await write(db, act, "project.create", project_id, after=view)
        return view

    async def change_project(self, project_id: str, change: ProjectChange, act: Act) -> ProjectView:
        """Changes the fields that are given.

        Raises:
            NotFoundError: If there is none of this id.
            ConflictError: If another one of the organisation has the name.
        """
        async with self._store.transaction() as db:
            before = _project(await find_project(db, project_id))
            values: dict[str, str | None] = {}
            if change.name is not None:
                values["name"] = change.name
            if "models" in change.model_fields_set:
                values["models"] = json_of(change.models)
            if values:
                statement = update(PROJECTS).where(PROJECTS.c.project_id == project_id)
                try:
                    await db.execute(statement.values(**values))
                except IntegrityError as exc:
                    raise ConflictError(f"a project {change.name!r} exists already") from exc
            after = _project(await find_project(db, project_id))
            await write(db, act, "project.change", project_id, before, after)
            await tell_gateways(db)
        return after

    async def delete_project(self, project_id: str, act: Act) -> None:
        """Deletes a project; its keys are revoked.

        Raises:
            NotFoundError: If there is none of this id.
            ConflictError: If it is the default one.
        """
        if project_id == DEFAULT_PROJECT:
            raise ConflictError("the default project cannot be deleted")
        async with self._store.transaction() as db:
            before = _project(await find_project(db, project_id))
            await _end_project(db, project_id, act)
            await write(db, act, "project.delete", project_id, before=before)
            await tell_gateways(db)

    # --- service accounts ---------------------------------------------------------------------

    async def accounts(self, project_id: str | None = None) -> list[AccountView]:
        """All service accounts by name; those of one project where it is given."""
        query = select(ACCOUNTS).where(ACCOUNTS.c.deleted_at.is_(None)).order_by(ACCOUNTS.c.name)
        if project_id is not None:
            query = query.where(ACCOUNTS.c.project_id == project_id)
        async with self._store.transaction() as db:
            rows = (await db.execute(query)).all()
        return [_account(row) for row in rows]

    async def add_account(self, new: NewAccount, act: Act) -> AccountView:
        """Makes a service account.

        Raises:
            NotFoundError: If there is no such project.
            ConflictError: If it has an account of this name.
        """
        view = AccountView(
            account_id=new_id("sa"),
            project_id=new.project_id,
            name=new.name,
            created_at=moment(act.at),
        )
        async with self._store.transaction() as db:
            await find_project(db, new.project_id)
            row: Values = {**view.model_dump(exclude={"created_at"}), "created_at": act.at}
            await _insert(db, ACCOUNTS, row, f"a service account {new.name!r} exists already")
            await write(db, act, "account.create", view.account_id, after=view)
        return view

    async def delete_account(self, account_id: str, act: Act) -> None:
        """Deletes a service account; its keys are revoked.

        Raises:
            NotFoundError: If there is none of this id.
        """
        async with self._store.transaction() as db:
            before = _account(await find_account(db, account_id))
            await db.execute(
                update(ACCOUNTS)
                .where(ACCOUNTS.c.account_id == account_id)
                .values(deleted_at=act.at)
            )
            keys = and_(KEYS.c.account_id == account_id, KEYS.c.revoked_at.is_(None))
            await db.execute(update(KEYS).where(keys).values(revoked_at=act.at))
            await write(db, act, "account.delete", account_id, before=before)
            await tell_gateways(db)


async def find_org(db: AsyncConnection, org_id: str) -> Row[Any]:
    """The row of an organisation that lives.

    Raises:
        NotFoundError: If there is none of this id.
    """
    alive = and_(ORGANIZATIONS.c.org_id == org_id, ORGANIZATIONS.c.deleted_at.is_(None))
    row = (await db.execute(select(ORGANIZATIONS).where(alive))).one_or_none()
    if row is None:
        raise NotFoundError("there is no such organisation", param="org_id")
    return row


async def find_project(db: AsyncConnection, project_id: str) -> Row[Any]:
    """The row of a project that lives, with its organisation's name.

    Raises:
        NotFoundError: If there is none of this id.
    """
    query = _PROJECTS.where(PROJECTS.c.project_id == project_id)
    row = (await db.execute(query)).one_or_none()
    if row is None:
        raise NotFoundError("there is no such project", param="project_id")
    return row


async def find_account(db: AsyncConnection, account_id: str) -> Row[Any]:
    """The row of a service account that lives.

    Raises:
        NotFoundError: If there is none of this id.
    """
    alive = and_(ACCOUNTS.c.account_id == account_id, ACCOUNTS.c.deleted_at.is_(None))
    row = (await db.execute(select(ACCOUNTS).where(alive))).one_or_none()
    if row is None:
        raise NotFoundError("there is no such service account", param="account_id")
    return row


_PROJECTS = (
    select(PROJECTS, ORGANIZATIONS.c.name.label("org"))
    .join(ORGANIZATIONS, ORGANIZATIONS.c.org_id == PROJECTS.c.org_id)
    .where(PROJECTS.c.deleted_at.is_(None))
)


async def _insert(db: AsyncConnection, table: Table, row: Values, taken: str) -> None:
    try:
        await db.execute(insert(table).values(**row))
    except IntegrityError as exc:
        raise ConflictError(taken, param="name") from exc


async def _end_project(db: AsyncConnection, project_id: str, act: Act) -> None:
    here = PROJECTS.c.project_id == project_id
    await db.execute(update(PROJECTS).where(here).values(deleted_at=act.at))
    accounts = and_(ACCOUNTS.c.project_id == project_id, ACCOUNTS.c.deleted_at.is_(None))
    await db.execute(update(ACCOUNTS).where(accounts).values(deleted_at=act.at))
    keys = and_(KEYS.c.project_id == project_id, KEYS.c.revoked_at.is_(None))
    await db.execute(update(KEYS).where(keys).values(revoked_at=act.at))


def _org(row: Row[Any]) -> OrgView:
    return OrgView(org_id=row.org_id, name=row.name, created_at=moment(row.created_at))


def _project(row: Row[Any]) -> ProjectView:
    return ProjectView(
        project_id=row.project_id,
        org_id=row.org_id,
        org=row.org,
        name=row.name,
        models=models_of(row.models),
        created_at=moment(row.created_at),
    )


def _account(row: Row[Any]) -> AccountView:
    return AccountView(
        account_id=row.account_id,
        project_id=row.project_id,
        name=row.name,
        created_at=moment(row.created_at),
    )
