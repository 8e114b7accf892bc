"""Calls the admin API's routes of tenants, limits, prices and costs."""

from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from models.errors import BadRequestError, NotFoundError
from serving.cli.client import AdminClient, connect
from serving.costs import CostReport
from serving.limits import LimitSpec, LimitView
from serving.prices import GpuPriceView, NewGpuPrice, NewTokenPrice, PriceList, TokenPriceView
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

NamedT = TypeVar("NamedT", OrgView, ProjectView, AccountView, KeyView)
ResourceT = TypeVar("ResourceT", bound=BaseModel)


class TenantClient:
    """The operator's view of tenants; blocking. Its every failure is a PenstockError."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin

    # --- organisations, projects, service accounts ----------------------------------------------

    def orgs(self) -> list[OrgView]:
        """All organisations."""
        return self._admin.read("/organizations", Items[OrgView]).items

    def org(self, name: str) -> OrgView:
        """The organisation of a name or id."""
        return _named(self.orgs(), name, "organisation", "penstock org list", _id_of_org)

    def add_org(self, new: NewOrg) -> OrgView:
        """Makes an organisation."""
        return self._admin.write("POST", "/organizations", new, OrgView)

    def delete_org(self, name: str) -> None:
        """Deletes an organisation with its projects and keys."""
        self._admin.remove(f"/organizations/{self.org(name).org_id}")

    def projects(self, org: str | None = None) -> list[ProjectView]:
        """All projects, or those of one organisation."""
        parameters = {"org_id": self.org(org).org_id} if org else None
        return self._admin.read("/projects", Items[ProjectView], parameters).items

    def project(self, name: str) -> ProjectView:
        """The project of an id, or of a name: `organisation/project`."""
        found = self.projects()
        if by_id := [project for project in found if project.project_id == name]:
            return by_id[0]
        whole = [project for project in found if f"{project.org}/{project.name}" == name]
        return _named(whole or found, name.rpartition("/")[2] if whole else name, "project",
                      "penstock project list", _id_of_project)  # fmt: skip

    def add_project(self, new: NewProject) -> ProjectView:
        """Makes a project."""
        return self._admin.write("POST", "/projects", new, ProjectView)

    def change_project(self, name: str, change: ProjectChange) -> ProjectView:
        """Changes a project."""
        path = f"/projects/{self.project(name).project_id}"
        return self._admin.write("PATCH", path, change, ProjectView)

    def delete_project(self, name: str) -> None:
        """Deletes a project with its keys."""
        self._admin.remove(f"/projects/{self.project(name).project_id}")

    def accounts(self, project: str | None = None) -> list[AccountView]:
        """All service accounts, or those of one project."""
        parameters = {"project_id": self.project(project).project_id} if project else None
        return self._admin.read("/service-accounts", Items[AccountView], parameters).items

    def account(self, project: str, name: str) -> AccountView:
        """The service account of a project by name or id; made where there is none."""
        project_id = self.project(project).project_id
        for account in self.accounts(project_id):
            if name in (account.account_id, account.name):
                return account
        new = NewAccount(project_id=project_id, name=name)
        return self._admin.write("POST", "/service-accounts", new, AccountView)

    def delete_account(self, project: str, name: str) -> None:
        """Deletes a service account with its keys."""
        found = _named(self.accounts(project), name, "service account",
                       "penstock project accounts", lambda account: account.account_id)  # fmt: skip
        self._admin.remove(f"/service-accounts/{found.account_id}")

    # --- keys -----------------------------------------------------------------------------------

    def keys(self, project: str | None = None) -> list[KeyView]:
        """All keys, or those of one project; revoked ones too."""
        parameters = {"project_id": self.project(project).project_id} if project else None
        return self._admin.read("/keys", Items[KeyView], parameters).items

    def key(self, name: str) -> KeyView:
        """The key of an id, or of a name that one valid key only has."""
        valid = [key for key in self.keys() if key.revoked_at is None or key.key_id == name]
        return _named(valid, name, "key", "penstock key list", lambda key: key.key_id)

    def issue(self, new: NewKey) -> IssuedKey:
        """Makes a key."""
        return self._admin.write("POST", "/keys", new, IssuedKey)

    def change_key(self, name: str, change: KeyChange) -> KeyView:
        """Changes a key."""
        return self._admin.write("PATCH", f"/keys/{self.key(name).key_id}", change, KeyView)

    def rotate(self, name: str, rotation: Rotation) -> IssuedKey:
        """Gives a key a new plain text."""
        path = f"/keys/{self.key(name).key_id}/rotate"
        return self._admin.write("POST", path, rotation, IssuedKey)

    def revoke(self, name: str) -> KeyView:
        """Ends a key."""
        key = self.key(name)
        self._admin.remove(f"/keys/{key.key_id}")
        return key

    def audit(self, limit: int, subject_id: str | None) -> list[AuditView]:
        """The newest acts."""
        parameters = {"limit": str(limit)} | ({"subject_id": subject_id} if subject_id else {})
        return self._admin.read("/audit", Items[AuditView], parameters).items

    # --- limits, prices, costs --------------------------------------------------------------------

    def scope_id(self, org: str | None, project: str | None, key: str | None) -> str:
        """The id of what exactly one of the three names.

        Raises:
            BadRequestError: If it is not exactly one.
        """
        if sum(name is not None for name in (org, project, key)) != 1:
            raise BadRequestError("give exactly one of --org, --project and --key")
        if org is not None:
            return self.org(org).org_id
        return (
            self.project(project).project_id if project is not None else self.key(key or "").key_id
        )

    def limits(self) -> list[LimitView]:
        """All limits."""
        return self._admin.read("/limits", Items[LimitView]).items

    def put_limit(self, scope_id: str, model: str, spec: LimitSpec) -> LimitView:
        """Sets what a scope may use of a model."""
        path = f"/limits/{scope_id}/{quote(model, safe='')}"
        return self._admin.write("PUT", path, spec, LimitView)

    def delete_limit(self, scope_id: str, model: str) -> None:
        """Lifts a limit."""
        self._admin.remove(f"/limits/{scope_id}/{quote(model, safe='')}")

    def prices(self) -> PriceList:
        """The price book."""
        return self._admin.read("/prices", PriceList)

    def add_token_price(self, new: NewTokenPrice) -> TokenPriceView:
        """Adds a price of tokens."""
        return self._admin.write("POST", "/prices/tokens", new, TokenPriceView)

    def add_gpu_price(self, new: NewGpuPrice) -> GpuPriceView:
        """Adds a price of an accelerator's hour."""
        return self._admin.write("POST", "/prices/gpus", new, GpuPriceView)

    def delete_price(self, price_id: str) -> None:
        """Takes a price out of the book."""
        self._admin.remove(f"/prices/{quote(price_id, safe='')}")

    def costs(self, hours: float) -> CostReport:
        """What was earned and spent in the last hours."""
        return self._admin.read("/costs", CostReport, {"hours": f"{hours:g}"})

    def close(self) -> None:
        """Closes its connections."""
        self._admin.close()

    def __enter__(self) -> "TenantClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tenants() -> TenantClient:
    """A client for the platform that the caller's settings name."""
    return TenantClient(connect())


def _id_of_org(org: OrgView) -> str:
    return org.org_id


def _id_of_project(project: ProjectView) -> str:
    return project.project_id


def _named(
    things: Sequence[NamedT], name: str, kind: str, hint: str, id_of: Callable[[NamedT], str]
) -> NamedT:
    for thing in things:
        if id_of(thing) == name:
            return thing
    found = [thing for thing in things if thing.name == name]
    if not found:
        raise NotFoundError(f"there is no {kind} {name!r}", hint=f"`{hint}` shows all of them")
    if len(found) > 1:
        ids = ", ".join(id_of(thing) for thing in found)
        raise BadRequestError(f"{name!r} is the name of {ids}", hint="give its id")
    return found[0]
