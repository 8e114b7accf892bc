"""Who may do what on the admin API: one table of roles, one of routes.

A route that the second table does not name is an admin's alone; a test holds it complete, and
writes both into `docs/reference/access.md`.
"""

from enum import StrEnum

from models.errors import ForbiddenError
from serving.identities import KeyRecord, Role


class Permission(StrEnum):
    """A kind of thing that one may do on the admin API."""

    READ = "read"  # the platform: models, engines, hosts, events
    READ_LOGS = "read_logs"  # the engines' own words
    READ_USAGE = "read_usage"  # what tenants used, and what it cost
    DEPLOY = "deploy"  # models in and out of service
    TENANTS = "tenants"  # organisations, projects, keys, limits
    PRICES = "prices"
    AUDIT = "audit"


ROLES: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.OPERATOR: frozenset({
        Permission.READ, Permission.READ_LOGS, Permission.READ_USAGE, Permission.DEPLOY,
    }),
    Role.VIEWER: frozenset({Permission.READ, Permission.READ_USAGE}),
    Role.INFERENCE: frozenset(),
}  # fmt: skip

ROUTES: dict[tuple[str, str], Permission] = {
    ("GET", "/admin/v1/status"): Permission.READ,
    ("GET", "/admin/v1/models"): Permission.READ,
    ("POST", "/admin/v1/models"): Permission.DEPLOY,
    ("GET", "/admin/v1/models/{name}"): Permission.READ,
    ("DELETE", "/admin/v1/models/{name}"): Permission.DEPLOY,
    ("GET", "/admin/v1/models/{name}/revisions"): Permission.READ,
    ("GET", "/admin/v1/models/{name}/adapters"): Permission.READ,
    ("PUT", "/admin/v1/models/{name}/adapters/{adapter}"): Permission.DEPLOY,
    ("DELETE", "/admin/v1/models/{name}/adapters/{adapter}"): Permission.DEPLOY,
    ("GET", "/admin/v1/models/{name}/rollout"): Permission.READ,
    ("POST", "/admin/v1/models/{name}/rollout/undo"): Permission.DEPLOY,
    ("POST", "/admin/v1/models/{name}/rollout/pause"): Permission.DEPLOY,
    ("POST", "/admin/v1/models/{name}/rollout/resume"): Permission.DEPLOY,
    ("GET", "/admin/v1/models/{name}/starts"): Permission.READ,
    ("GET", "/admin/v1/models/{name}/decisions"): Permission.READ,
    ("PATCH", "/admin/v1/models/{name}/scaling"): Permission.DEPLOY,
    ("GET", "/admin/v1/models/{name}/capacity"): Permission.READ,
    ("GET", "/admin/v1/models/{name}/demand"): Permission.READ,
    ("GET", "/admin/v1/engines"): Permission.READ,
    ("GET", "/admin/v1/engines/{engine_id}/log"): Permission.READ_LOGS,
    ("GET", "/admin/v1/hosts"): Permission.READ,
    ("GET", "/admin/v1/events"): Permission.READ,
    ("GET", "/admin/v1/organizations"): Permission.TENANTS,
    ("POST", "/admin/v1/organizations"): Permission.TENANTS,
    ("DELETE", "/admin/v1/organizations/{org_id}"): Permission.TENANTS,
    ("GET", "/admin/v1/projects"): Permission.TENANTS,
    ("POST", "/admin/v1/projects"): Permission.TENANTS,
    ("PATCH", "/admin/v1/projects/{project_id}"): Permission.TENANTS,
    ("DELETE", "/admin/v1/projects/{project_id}"): Permission.TENANTS,
    ("GET", "/admin/v1/service-accounts"): Permission.TENANTS,
    ("POST", "/admin/v1/service-accounts"): Permission.TENANTS,
    ("DELETE", "/admin/v1/service-accounts/{account_id}"): Permission.TENANTS,
    ("GET", "/admin/v1/keys"): Permission.TENANTS,
    ("POST", "/admin/v1/keys"): Permission.TENANTS,
    ("GET", "/admin/v1/keys/{key_id}"): Permission.TENANTS,
    ("PATCH", "/admin/v1/keys/{key_id}"): Permission.TENANTS,
    ("POST", "/admin/v1/keys/{key_id}/rotate"): Permission.TENANTS,
    ("DELETE", "/admin/v1/keys/{key_id}"): Permission.TENANTS,
    ("GET", "/admin/v1/limits"): Permission.TENANTS,
    ("PUT", "/admin/v1/limits/{scope_id}/{model}"): Permission.TENANTS,
    ("DELETE", "/admin/v1/limits/{scope_id}/{model}"): Permission.TENANTS,
    ("GET", "/admin/v1/prices"): Permission.READ_USAGE,
    ("POST", "/admin/v1/prices/tokens"): Permission.PRICES,
    ("POST", "/admin/v1/prices/gpus"): Permission.PRICES,
    ("DELETE", "/admin/v1/prices/{price_id}"): Permission.PRICES,
    ("GET", "/admin/v1/costs"): Permission.READ_USAGE,
    ("GET", "/v1/organization/costs"): Permission.READ_USAGE,
    ("GET", "/admin/v1/audit"): Permission.AUDIT,
    ("GET", "/admin/v1/usage"): Permission.READ_USAGE,
    ("GET", "/admin/v1/usage/export"): Permission.READ_USAGE,
    ("GET", "/admin/v1/usage/reconcile"): Permission.READ_USAGE,
    ("GET", "/v1/organization/usage/completions"): Permission.READ_USAGE,
}


def permission_of(method: str, path: str) -> Permission | None:
    """What a route asks for; None where the table does not name it: then an admin's role."""
    return ROUTES.get((method, path))


def may(role: Role, method: str, path: str) -> bool:
    """Whether keys of a role get in."""
    permission = permission_of(method, path)
    return role is Role.ADMIN if permission is None else permission in ROLES[role]


def require(caller: KeyRecord, method: str, path: str) -> None:
    """Lets a caller in.

    Raises:
        ForbiddenError: If its role may not do this.
    """
    if may(caller.role, method, path):
        return
    if caller.role is Role.INFERENCE:
        raise ForbiddenError(
            "this key may call models, not operate the platform",
            hint="use the admin key (PENSTOCK_ADMIN_KEY)",
        )
    permission = permission_of(method, path)
    raise ForbiddenError(
        f"a key of role {caller.role} may not do this",
        hint=f"it takes a role with the permission {permission or 'of an admin'}",
    )
