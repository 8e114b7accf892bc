"""Every admin route with every role: who gets in, and that nobody forgot a route."""

from collections.abc import AsyncIterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from serving.controller.access import ROLES, ROUTES, Permission, may
from serving.controller.app import create_app
from serving.controller.callers import act_of
from serving.identities import Role
from tests.serving.controller.served import Served, serve
from tests.serving.controller.world import settings

GUARDED = ("/admin/v1", "/v1/organization")


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(settings(database_url=database_url)) as served:
        yield served


def guarded_routes() -> set[tuple[str, str]]:
    app = create_app(settings())
    return {
        (method, route.path)
        for route in app.routes
        if isinstance(route, APIRoute) and route.path.startswith(GUARDED)
        for method in route.methods
    }


def test_table_names_every_route_and_no_other() -> None:
    assert guarded_routes() == set(ROUTES)


def test_roles_hold_less_and_less() -> None:
    assert ROLES[Role.ADMIN] == set(Permission)
    assert ROLES[Role.ADMIN] > ROLES[Role.OPERATOR] > ROLES[Role.VIEWER] > ROLES[Role.INFERENCE]
    assert not ROLES[Role.INFERENCE]
    assert may(Role.ADMIN, "GET", "/admin/v1/forgotten")
    assert not may(Role.OPERATOR, "GET", "/admin/v1/forgotten")


async def test_each_role_gets_in_where_the_table_says_and_nowhere_else(served: Served) -> None:
    """The walk: 403 exactly where the table says no, 401 without a key, on every route."""
    secrets = {}
    for role in Role:
        answer = await served.admin.post("/admin/v1/keys", json={"name": role, "role": role})
        secrets[role] = answer.json()["secret"]
    wrong = []
    # What deletes comes last: else the default tenant's things would be gone.
    for method, path in sorted(guarded_routes(), key=lambda route: (route[0] == "DELETE", route)):
        url = "/".join("nobody" if part.startswith("{") else part for part in path.split("/"))
        assert (await served.anonymous.request(method, url)).status_code == 401, (method, path)
        for role, secret in secrets.items():
            headers = {"authorization": f"Bearer {secret}"}
            answer = await served.anonymous.request(method, url, headers=headers)
            assert answer.status_code not in (401, 500), (method, path, role)
            if (answer.status_code != 403) != may(role, method, path):
                wrong.append((method, path, role, answer.status_code))
    assert not wrong


def test_every_route_that_changes_something_is_audited() -> None:
    """Each asks for the deed that it writes into the log."""
    app = create_app(settings())
    silent = [
        route.path
        for route in app.routes
        if isinstance(route, APIRoute) and route.path.startswith(GUARDED)
        if route.methods - {"GET"} and act_of not in dependencies(route.dependant)
    ]
    assert not silent


def dependencies(dependant: Dependant) -> set[object]:
    inner = [dependencies(one) for one in dependant.dependencies]
    return {dependant.call}.union(*inner)


async def test_internal_routes_take_no_ones_key(served: Served) -> None:
    for client in (served.admin, served.tenant, served.anonymous):
        for path in ("/internal/v1/limits", "/internal/v1/demand"):
            assert (await client.post(path, content=b"{}")).status_code == 401
