"""Tenants over the admin API: made, changed, deleted; who gets in; what stands in the audit log."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

from serving.controller.identities import LOOK_S
from serving.controller.key_store import KeyStore
from serving.controller.keys import ensure_keys_async
from serving.identities import DEFAULT_ORG, DEFAULT_PROJECT, IdentitiesDelta
from tests.serving.controller.served import ADMIN_KEY, API_KEY, Served, serve
from tests.serving.controller.world import settings

INJECTION = "'; DROP TABLE keys; --"


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(settings(database_url=database_url)) as served:
        yield served


async def make(served: Served, noun: str, **fields: Any) -> dict[str, Any]:
    answer = await served.admin.post(f"/admin/v1/{noun}", json=fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def listed(served: Served, noun: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await served.admin.get(f"/admin/v1/{noun}")).json()["items"]
    return items


async def project_of(served: Served, org: str = "acme", **fields: Any) -> dict[str, Any]:
    made = await make(served, "organizations", name=org)
    return await make(served, "projects", org_id=made["org_id"], name="web", **fields)


async def test_first_platform_has_a_default_organisation_that_its_tenants_key_is_of(
    served: Served,
) -> None:
    assert [org["org_id"] for org in await listed(served, "organizations")] == [DEFAULT_ORG]
    keys = {key["role"]: key for key in await listed(served, "keys")}
    assert keys["inference"]["project_id"] == DEFAULT_PROJECT
    assert keys["admin"]["project_id"] is None
    for path in (f"organizations/{DEFAULT_ORG}", f"projects/{DEFAULT_PROJECT}"):
        assert (await served.admin.delete(f"/admin/v1/{path}")).status_code == 409


async def test_key_is_shown_once_and_stored_nowhere(served: Served, database_url: str) -> None:
    project = await project_of(served)
    issued = await make(served, "keys", name="web", project_id=project["project_id"])
    secret = issued["secret"]
    assert secret.startswith("pk-")
    key_id = issued["key"]["key_id"]
    answers = [
        (await served.admin.get("/admin/v1/keys")).text,
        (await served.admin.get(f"/admin/v1/keys/{key_id}")).text,
        (await served.admin.get("/admin/v1/audit")).text,
    ]
    for text in answers:
        assert key_id in text
        assert secret not in text
        assert secret[:12] not in text
        assert "digest" not in text
        assert "salt" not in text
    assert secret.encode() not in Path(database_url.partition("///")[2]).read_bytes()
    (record,) = [k for k in (await served.identities()).keys if k.key_id == key_id]
    assert (record.org_id, record.project_id) == (project["org_id"], project["project_id"])


async def test_revoked_key_is_gone_from_the_stream_within_a_second(served: Served) -> None:
    took_s = []
    for attempt in range(3):
        issued = await make(served, "keys", name=f"short-lived {attempt}")
        key_id = issued["key"]["key_id"]
        version = (await served.identities()).version
        poll = asyncio.create_task(served.identities(version))
        await asyncio.sleep(0)
        began_s = time.monotonic()
        assert (await served.admin.delete(f"/admin/v1/keys/{key_id}")).status_code == 204
        delta: IdentitiesDelta = await poll
        assert delta.removed == (key_id,)
        assert not delta.keys
        took_s.append(time.monotonic() - began_s)
    assert min(took_s) < 1.0  # the others may have met a busy machine
    assert (await served.admin.delete(f"/admin/v1/keys/{key_id}")).status_code == 204
    assert (await served.admin.get(f"/admin/v1/keys/{key_id}")).json()["revoked_at"]
    for change in ({"json": {"name": "x"}, "method": "PATCH"}, {"json": {}, "method": "POST"}):
        path = f"/admin/v1/keys/{key_id}" + ("/rotate" if change["method"] == "POST" else "")
        answer = await served.admin.request(str(change["method"]), path, json=change["json"])
        assert answer.status_code == 409


async def test_key_that_was_made_is_answered_though_the_database_goes_then(
    served: Served, database_url: str
) -> None:
    engine = create_async_engine(database_url)
    project = await project_of(served)
    async with engine.begin() as connection:  # which is read with the keys, and not for a new one
        await connection.execute(sqlalchemy.text("ALTER TABLE limits RENAME TO away"))
    issued = await make(served, "keys", project_id=project["project_id"], name="one")
    path = f"/admin/v1/keys/{issued['key']['key_id']}/rotate"
    rotated = await served.admin.post(path, json={})
    assert rotated.status_code == 200
    async with engine.begin() as connection:
        await connection.execute(sqlalchemy.text("ALTER TABLE away RENAME TO limits"))
    await engine.dispose()
    await served.controller.identities.refresh()
    for secret in (issued["secret"], rotated.json()["secret"]):
        record = served.controller.identities.authenticate(secret.encode(), time.time())
        assert record.key_id == issued["key"]["key_id"]


async def test_rotated_key_keeps_its_id_and_both_secrets_for_the_overlap(served: Served) -> None:
    issued = await make(served, "keys", name="rotating", role="viewer")
    key_id = issued["key"]["key_id"]

    async def status(secret: str) -> int:
        headers = {"authorization": f"Bearer {secret}"}
        return (await served.anonymous.get("/admin/v1/status", headers=headers)).status_code

    rotated = (await served.admin.post(f"/admin/v1/keys/{key_id}/rotate", json={})).json()
    assert rotated["key"]["key_id"] == key_id
    assert [await status(one["secret"]) for one in (issued, rotated)] == [200, 200]
    again = (
        await served.admin.post(f"/admin/v1/keys/{key_id}/rotate", json={"overlap_s": 0})
    ).json()
    secrets = [one["secret"] for one in (issued, rotated, again)]
    assert [await status(secret) for secret in secrets] == [401, 401, 200]


async def test_expired_key_gets_in_no_more(served: Served) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    issued = await make(served, "keys", name="soon", role="viewer", expires_at=soon.isoformat())
    headers = {"authorization": f"Bearer {issued['secret']}"}
    assert (await served.anonymous.get("/admin/v1/status", headers=headers)).status_code == 200
    async with asyncio.timeout(30):
        while (
            answer := await served.anonymous.get("/admin/v1/status", headers=headers)
        ).is_success:
            pass
    assert "expired" in answer.json()["error"]["message"]


async def test_allow_lists_of_key_and_project_hold_together(served: Served) -> None:
    project = await project_of(served, models=["guide", "qwen3-8b"])
    made = [
        await make(served, "keys", name=name, project_id=project["project_id"], **more)
        for name, more in (("all", {}), ("some", {"models": ["guide", "other"]}))
    ]
    ids = [one["key"]["key_id"] for one in made]

    async def lists() -> list[tuple[str, ...] | None]:
        records = {key.key_id: key.models for key in (await served.identities()).keys}
        return [records[key_id] for key_id in ids]

    assert await lists() == [("guide", "qwen3-8b"), ("guide",)]
    path = f"/admin/v1/projects/{project['project_id']}"
    assert (await served.admin.patch(path, json={"models": None})).status_code == 200
    assert await lists() == [None, ("guide", "other")]
    assert (await served.admin.patch(path, json={"models": []})).status_code == 200
    assert await lists() == [(), ()]


async def test_deleting_a_tenant_revokes_its_keys(served: Served) -> None:
    project = await project_of(served)
    account = await make(
        served, "service-accounts", project_id=project["project_id"], name="crawler"
    )
    made = {}
    for name, account_id in (("person", None), ("program", account["account_id"])):
        fields = {"account_id": account_id} if account_id else {}
        made[name] = await make(
            served, "keys", name=name, project_id=project["project_id"], **fields
        )

    async def valid() -> set[str]:
        return {key.name for key in (await served.identities()).keys} & set(made)

    assert await valid() == {"person", "program"}
    path = f"/admin/v1/service-accounts/{account['account_id']}"
    assert (await served.admin.delete(path)).status_code == 204
    assert await valid() == {"person"}
    path = f"/admin/v1/organizations/{project['org_id']}"
    assert (await served.admin.delete(path)).status_code == 204
    assert await valid() == set()
    assert (await served.admin.delete(path)).status_code == 404
    await make(served, "organizations", name="acme")  # its name is free again


@pytest.mark.parametrize(
    ("noun", "fields", "status"),
    [
        ("organizations", {"name": "default"}, 409),
        ("organizations", {"name": "x" * 200}, 400),
        ("organizations", {"name": ""}, 400),
        ("organizations", {"name": " blank"}, 400),
        ("organizations", {"name": 'two\n{"event": "forged"}'}, 400),
        ("organizations", {"name": "\x1b[31mred"}, 400),
        ("organizations", {"name": "‮reversed"}, 400),
        ("organizations", {"name": "a", "admin": True}, 400),
        ("projects", {"org_id": "org-none", "name": "web"}, 404),
        ("projects", {"org_id": INJECTION, "name": "web"}, 404),
        ("keys", {"name": "a", "project_id": "proj-none"}, 404),
        ("keys", {"name": "a", "role": "root"}, 400),
        ("keys", {"name": "a", "role": "admin", "project_id": DEFAULT_PROJECT}, 400),
        ("keys", {"name": "a", "models": ["Not A Model"]}, 400),
        ("keys", {"name": "a", "expires_at": "2001-01-01T00:00:00Z"}, 400),
        ("keys", {"name": "a", "expires_at": "2099-01-01T00:00:00"}, 400),
        ("prices/tokens", {"model": "guide", "input": "-1", "output": "1"}, 400),
        ("prices/tokens", {"model": "guide", "input": "NaN", "output": "1"}, 400),
        ("prices/tokens", {"model": "guide", "input": "0.0000001", "output": "1"}, 400),
        ("prices/gpus", {"accelerator": "h100", "per_hour": -2.39}, 400),
        ("prices/gpus", {"accelerator": "h100", "per_hour": 1e30}, 400),
    ],
)
async def test_bad_input_is_refused_and_changes_nothing(
    served: Served, noun: str, fields: dict[str, Any], status: int
) -> None:
    before = (await served.admin.get("/admin/v1/audit")).json()
    answer = await served.admin.post(f"/admin/v1/{noun}", json=fields)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert (await served.admin.get("/admin/v1/audit")).json() == before


async def test_names_are_data_and_nothing_else(served: Served) -> None:
    for name in (INJECTION, 'Robert"); --', "{{7*7}} %s %n", "x" * 128, "Zürich 東京"):
        org = await make(served, "organizations", name=name)
        project = await make(served, "projects", org_id=org["org_id"], name=name)
        await make(served, "keys", name=name, project_id=project["project_id"])
    assert INJECTION in {key["name"] for key in await listed(served, "keys")}


async def test_last_admin_key_cannot_be_revoked(served: Served) -> None:
    (first,) = [key for key in await listed(served, "keys") if key["role"] == "admin"]
    path = f"/admin/v1/keys/{first['key_id']}"
    assert (await served.admin.delete(path)).status_code == 409
    second = await make(served, "keys", name="second", role="admin")
    assert (await served.admin.delete(path)).status_code == 204
    assert (await served.admin.get("/admin/v1/status")).status_code == 401
    headers = {"authorization": f"Bearer {second['secret']}"}
    assert (await served.anonymous.get("/admin/v1/status", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([("authorization", f"Bearer {ADMIN_KEY}")] * 2, ""),
        ([("authorization", f"Bearer {ADMIN_KEY}"), ("x-api-key", API_KEY)], ""),
        ([("authorization", f"Bearer {ADMIN_KEY}")], f"?api_key={ADMIN_KEY}"),
        ([], f"?key={ADMIN_KEY}"),
        ([("authorization", "Basic cGE6cGE=")], ""),
        ([], ""),
    ],
)
async def test_key_comes_once_and_in_its_header(
    served: Served, headers: list[tuple[str, str]], query: str
) -> None:
    answer = await served.anonymous.get(f"/admin/v1/status{query}", headers=headers)
    assert answer.status_code == 401
    assert ADMIN_KEY not in answer.text


async def test_audit_log_tells_who_did_what_with_before_and_after(served: Served) -> None:
    project = await project_of(served)
    path = f"/admin/v1/projects/{project['project_id']}"
    headers = {"x-request-id": "req-77"}
    await served.admin.patch(path, json={"name": "shop"}, headers=headers)
    await served.deploy()
    await served.admin.delete("/admin/v1/models/guide")
    lines = await listed(served, "audit")
    assert [line["action"] for line in lines] == [
        "org.create", "project.create", "project.change", "model.deploy", "model.delete",
    ]  # fmt: skip
    change = lines[2]
    assert (change["actor_name"], change["role"], change["request_id"]) == (
        "operator", "admin", "req-77",
    )  # fmt: skip
    assert json.loads(change["before"])["name"] == "web"
    assert json.loads(change["after"])["name"] == "shop"
    about = await served.admin.get(f"/admin/v1/audit?subject_id={project['project_id']}&limit=1")
    assert [line["action"] for line in about.json()["items"]] == ["project.change"]


async def test_limits_and_prices_reach_the_gateways(served: Served) -> None:
    project = await project_of(served)
    path = f"/admin/v1/limits/{project['project_id']}/*"
    spec = {"requests_per_min": 60, "budget_month": "1.50"}
    answer = await served.admin.put(path, json=spec)
    assert (answer.status_code, answer.json()["budget_month"]) == (200, "1.5")
    await make(served, "prices/tokens", model="guide", input="0.10", cached=0.025, output="0.40")
    delta = await served.identities()
    (limit,) = delta.limits
    assert (limit.requests_per_min, limit.budget_month) == (60, 1_500_000_000_000)
    (price,) = delta.prices
    assert (price.input, price.cached, price.output) == (100_000, 25_000, 400_000)
    changed = await served.admin.put(path, json={"concurrent": 3})
    assert changed.json()["requests_per_min"] is None
    assert (await served.admin.delete(path)).status_code == 204
    assert (await served.admin.delete(path)).status_code == 404
    after = await served.identities(delta.version)
    assert after.removed == (limit.limit_id,)
    for bad in (
        "/admin/v1/limits/key-none/*",
        f"/admin/v1/limits/{project['project_id']}/No Model",
    ):
        assert (await served.admin.put(bad, json=spec)).status_code in (400, 404)
    negative = await served.admin.put(path, json={"budget_day": -1})
    assert (negative.status_code, negative.json()["error"]["param"]) == (400, "budget_day")


async def test_change_by_another_process_is_told(served: Served) -> None:
    version = (await served.identities()).version
    poll = asyncio.create_task(served.identities(version))
    await ensure_keys_async(served.controller.settings.database_url, api_key="pk-another-one")
    assert (await poll).version > version
    assert LOOK_S < 1.0


async def test_stream_tells_only_what_changed(served: Served) -> None:
    first = await served.identities()
    for i in range(3):
        await make(served, "keys", name=f"k{i}")
    delta = await served.identities(first.version)
    assert (delta.full, len(delta.keys)) == (False, 3)
    assert not (await served.identities(first.version - 10**6)).removed
    assert len((await served.identities(0)).keys) == len(
        await KeyStore(served.controller.store).records()
    )
