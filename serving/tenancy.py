"""Tenants in the admin API: its resources and bodies, shared by the controller and the CLI.

GET    /admin/v1/organizations                 Items[OrgView]
POST   /admin/v1/organizations                 NewOrg -> OrgView (201)
DELETE /admin/v1/organizations/{id}            204, with its projects and their keys
GET    /admin/v1/projects?org_id=              Items[ProjectView]
POST   /admin/v1/projects                      NewProject -> ProjectView (201)
PATCH  /admin/v1/projects/{id}                 ProjectChange -> ProjectView
DELETE /admin/v1/projects/{id}                 204, with its keys
GET    /admin/v1/service-accounts?project_id=  Items[AccountView]
POST   /admin/v1/service-accounts              NewAccount -> AccountView (201)
DELETE /admin/v1/service-accounts/{id}         204, with its keys
GET    /admin/v1/keys?project_id=              Items[KeyView], revoked ones too
POST   /admin/v1/keys                          NewKey -> IssuedKey (201): the only time
GET    /admin/v1/keys/{id}                     KeyView
PATCH  /admin/v1/keys/{id}                     KeyChange -> KeyView
POST   /admin/v1/keys/{id}/rotate              Rotation -> IssuedKey
DELETE /admin/v1/keys/{id}                     204
GET    /admin/v1/audit?limit=N&subject_id=     Items[AuditView], newest last
"""

import unicodedata
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.adapters_spec import AllowedName as ModelName
from serving.identities import Role
from serving.views import View

LONGEST_OVERLAP_S = 30 * 86_400.0


def _fit_for_a_line(name: str) -> str:
    """Names stand in logs and tables: no line breaks, escapes or invisible characters."""
    if name != name.strip() or not name:
        raise ValueError("must not be empty, nor begin or end with a blank")
    if any(unicodedata.category(char)[0] in "CZ" and char != " " for char in name):
        raise ValueError("must not hold control characters or line breaks")
    return name


DisplayName = Annotated[str, Field(max_length=128), AfterValidator(_fit_for_a_line)]
Models = Annotated[tuple[ModelName, ...], Field(max_length=1000)]


class Body(BaseModel):
    """Base of all bodies: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class NewOrg(Body):
    """An organisation to be made."""

    name: DisplayName


class NewProject(Body):
    """A project to be made."""

    org_id: str = Field(max_length=64)
    name: DisplayName
    models: Models | None = None
    """The only models that its keys may call; none: all."""


class ProjectChange(Body):
    """What is to be changed; a field that is not given stays."""

    name: DisplayName | None = None
    models: Models | None = None


class NewAccount(Body):
    """A service account to be made."""

    project_id: str = Field(max_length=64)
    name: DisplayName


class NewKey(Body):
    """A key to be made."""

    name: DisplayName
    role: Role = Role.INFERENCE
    project_id: str | None = Field(default=None, max_length=64)
    """Of an inference key; a key of another role belongs to the platform, and has none."""
    account_id: str | None = Field(default=None, max_length=64)
    """The service account that it is for."""
    models: Models | None = None
    """The only models that it may call; none: all that its project may."""
    expires_at: datetime | None = None


class KeyChange(Body):
    """What is to be changed; a field that is not given stays."""

    name: DisplayName | None = None
    models: Models | None = None
    expires_at: datetime | None = None


class Rotation(Body):
    """A new plain text for a key, with the same id, rights and limits."""

    overlap_s: float = Field(default=3600.0, ge=0, le=LONGEST_OVERLAP_S)
    """For how long the old plain text is valid too."""


class OrgView(View):
    """An organisation: who pays."""

    org_id: str
    name: str
    created_at: datetime


class ProjectView(View):
    """A project of an organisation."""

    project_id: str
    org_id: str
    org: str
    name: str
    models: tuple[str, ...] | None
    created_at: datetime


class AccountView(View):
    """A service account: a program that calls models, with keys of its own."""

    account_id: str
    project_id: str
    name: str
    created_at: datetime


class KeyView(View):
    """A key, without what could be used as one."""

    key_id: str
    name: str
    role: Role
    prefix: str
    project_id: str | None
    account_id: str | None
    models: tuple[str, ...] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    overlap_until: datetime | None
    """Until when the plain text before the last rotation is valid."""


class IssuedKey(View):
    """A key with its plain text, which is shown this once."""

    key: KeyView
    secret: str = Field(repr=False)


class AuditView(View):
    """An act of an operator's."""

    at: datetime
    actor_id: str
    actor_name: str
    role: Role
    action: str
    subject_id: str
    request_id: str
    before: str | None
    """JSON of what was, without secrets."""
    after: str | None
