"""`/admin/v1`: organisations, projects, service accounts, keys, audit; see `serving.tenancy`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from serving.controller import audit
from serving.controller.callers import Deed, Here, require_permission
from serving.controller.key_store import KeyStore
from serving.controller.tenancy_rows import moment
from serving.controller.tenants import Tenants
from serving.tenancy import (
    AccountView,
    AuditView,
    IssuedKey,
    KeyChange,
    KeyView,
    NewAccount,
    NewKey,
    NewOrg,
    NewProject,
    OrgView,
    ProjectChange,
    ProjectView,
    Rotation,
)
from serving.views import Items

router = APIRouter(prefix="/admin/v1", dependencies=[Depends(require_permission)])

OrgFilter = Annotated[str | None, Query(description="Only those of this organisation.")]
ProjectFilter = Annotated[str | None, Query(description="Only those of this project.")]


@router.get("/organizations")
async def list_orgs(here: Here) -> Items[OrgView]:
    """All organisations."""
    return Items(items=await Tenants(here.store).orgs())


@router.post("/organizations", status_code=201)
async def add_org(new: NewOrg, here: Here, deed: Deed) -> OrgView:
    """Makes an organisation."""
    return await Tenants(here.store).add_org(new.name, deed)


@router.delete("/organizations/{org_id}", status_code=204)
async def delete_org(org_id: str, here: Here, deed: Deed) -> None:
    """Deletes an organisation with its projects, and revokes their keys."""
    await Tenants(here.store).delete_org(org_id, deed)
    await here.identities.refresh()


@router.get("/projects")
async def list_projects(here: Here, org_id: OrgFilter = None) -> Items[ProjectView]:
    """All projects."""
    return Items(items=await Tenants(here.store).projects(org_id))


@router.post("/projects", status_code=201)
async def add_project(new: NewProject, here: Here, deed: Deed) -> ProjectView:
    """Makes a project."""
    return await Tenants(here.store).add_project(new, deed)


@router.patch("/projects/{project_id}")
async def change_project(
    project_id: str, change: ProjectChange, here: Here, deed: Deed
) -> ProjectView:
    """Renames a project, or changes which models its keys may call."""
    view = await Tenants(here.store).change_project(project_id, change, deed)
    await here.identities.refresh()
    return view


@router.delete("/projects/{project_id}", status_code=204)
async def delete_project(project_id: str, here: Here, deed: Deed) -> None:
    """Deletes a project and revokes its keys."""
    await Tenants(here.store).delete_project(project_id, deed)
    await here.identities.refresh()


@router.get("/service-accounts")
async def list_accounts(here: Here, project_id: ProjectFilter = None) -> Items[AccountView]:
    """All service accounts."""
    return Items(items=await Tenants(here.store).accounts(project_id))


@router.post("/service-accounts", status_code=201)
async def add_account(new: NewAccount, here: Here, deed: Deed) -> AccountView:
    """Makes a service account."""
    return await Tenants(here.store).add_account(new, deed)


@router.delete("/service-accounts/{account_id}", status_code=204)
async def delete_account(account_id: str, here: Here, deed: Deed) -> None:
    """Deletes a service account and revokes its keys."""
    await Tenants(here.store).delete_account(account_id, deed)
    await here.identities.refresh()


@router.get("/keys")
async def list_keys(here: Here, project_id: ProjectFilter = None) -> Items[KeyView]:
    """All keys, revoked ones too; the newest last."""
    return Items(items=await KeyStore(here.store).views(project_id))


@router.post("/keys", status_code=201)
async def add_key(new: NewKey, here: Here, deed: Deed) -> IssuedKey:
    """Makes a key; its plain text is in this answer and can be had nowhere else."""
    issued = await KeyStore(here.store).issue(new, deed)
    await here.identities.refresh_or_later()
    return issued


@router.get("/keys/{key_id}")
async def get_key(key_id: str, here: Here) -> KeyView:
    """One key."""
    return await KeyStore(here.store).view(key_id)


@router.patch("/keys/{key_id}")
async def change_key(key_id: str, change: KeyChange, here: Here, deed: Deed) -> KeyView:
    """Renames a key, or changes which models it may call or when it expires."""
    view = await KeyStore(here.store).change(key_id, change, deed)
    await here.identities.refresh()
    return view


@router.post("/keys/{key_id}/rotate")
async def rotate_key(key_id: str, rotation: Rotation, here: Here, deed: Deed) -> IssuedKey:
    """Gives a key a new plain text; the old one stays valid for the overlap."""
    issued = await KeyStore(here.store).rotate(key_id, rotation, deed)
    await here.identities.refresh_or_later()
    return issued


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(key_id: str, here: Here, deed: Deed) -> None:
    """Revokes a key; gateways that are in touch refuse it within a second."""
    await KeyStore(here.store).revoke(key_id, deed)
    await here.identities.refresh()


@router.get("/audit")
async def list_audit(
    here: Here,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    subject_id: str | None = None,
) -> Items[AuditView]:
    """The newest acts, newest last."""
    found = await audit.entries(here.store, limit, subject_id)
    return Items(
        items=[
            AuditView(
                at=moment(entry.at),
                actor_id=entry.actor_id,
                actor_name=entry.actor_name,
                role=entry.role,
                action=entry.action,
                subject_id=entry.subject_id,
                request_id=entry.request_id,
                before=entry.before,
                after=entry.after,
            )
            for entry in found
        ]
    )
