"""The admin API over HTTP: what operators see and do, and how bad input is answered."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from serving.protocol import EnginePhase, FirstToken
from serving.views import (
    EngineView,
    EventView,
    HostView,
    Items,
    ModelView,
    PlatformView,
    StartView,
)
from tests.serving.controller.served import Served, serve
from tests.serving.controller.world import settings


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(settings(database_url=database_url, pools={"cpu": 2})) as served:
        yield served


async def test_admin_api_deploys_shows_and_deletes_a_model(served: Served) -> None:
    created = await served.deploy()
    assert (created.status_code, created.json()) == (
        201,
        {
            "model": "guide",
            "revision": 1,
            "changed": True,
            "warnings": [],
            "manifest": {"name": "guide", "source": "builtin://guide", "task": "generate"},
        },
    )
    same = await served.deploy()
    assert (same.status_code, same.json()["changed"]) == (200, False)
    changed = await served.deploy(scaling={"max": 2})
    assert (changed.status_code, changed.json()["revision"]) == (200, 2)

    model = ModelView.model_validate((await served.admin.get("/admin/v1/models/guide")).json())
    assert (model.state, model.revision, model.manifest.scaling.max) == ("asleep", 2, 2)
    revisions = (await served.admin.get("/admin/v1/models/guide/revisions")).json()["items"]
    assert [r["revision"] for r in revisions] == [1, 2]

    assert (await served.admin.delete("/admin/v1/models/guide")).status_code == 204
    gone = await served.admin.get("/admin/v1/models/guide")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    assert (await served.admin.delete("/admin/v1/models/guide")).status_code == 404
    assert (await served.deploy()).status_code == 201


async def test_admin_api_shows_engines_hosts_events_and_a_log(
    served: Served, tmp_path: Path
) -> None:
    log = tmp_path / "engine.log"
    log.write_text("".join(f"line {i}\n" for i in range(50)))
    host = await served.host("h1")
    await served.deploy()
    await served.demand(queued=3)
    await host.told_to_run()
    assert host.assignment.engine is not None
    engine_id = host.assignment.engine.engine_id
    assert (await served.admin.get(f"/admin/v1/engines/{engine_id}/log")).status_code == 404
    await host.report(EnginePhase.READY, log_path=str(log), pid=4711)
    await served.route_that(lambda route: bool(route.endpoints))

    response = await served.admin.get("/admin/v1/engines")
    (engine,) = Items[EngineView].model_validate(response.json()).items
    assert (engine.model, engine.phase, engine.pid, engine.host_id) == (
        "guide",
        "ready",
        4711,
        "h1",
    )
    assert [m.phase for m in engine.marks] == ["demand_seen", "decided", "bound", "routed"]
    assert engine.marks[0].at_s == 0
    token = FirstToken(start_id="req-1", engine_id=engine_id, at=time.time(), after_s=0.75)
    await served.demand(queued=3, first_tokens=(token,))
    found = (await served.admin.get("/admin/v1/models/guide/starts")).json()
    (start,) = Items[StartView].model_validate(found).items
    assert (start.start_id, start.engine_id, start.waited_s) == ("req-1", engine_id, 0.75)
    assert start.marks[-1].phase == "first_token"
    assert start.marks[-1].at_s == pytest.approx(0.75)
    assert (await served.admin.get("/admin/v1/models/nobody/starts")).status_code == 404
    (host_view,) = (
        Items[HostView].model_validate((await served.admin.get("/admin/v1/hosts")).json()).items
    )
    assert (host_view.engine_id, host_view.model) == (engine_id, "guide")

    response = await served.admin.get(f"/admin/v1/engines/{engine_id}/log?tail=2")
    assert (response.status_code, response.text) == (200, "line 48\nline 49\n")
    log.unlink()
    response = await served.admin.get(f"/admin/v1/engines/{engine_id}/log")
    assert response.status_code == 404
    assert "node node-1" in response.json()["error"]["message"]

    response = await served.admin.get("/admin/v1/events?model=guide")
    events = Items[EventView].model_validate(response.json()).items
    assert [e.kind for e in events] == ["deployed", "woken", "ready"]
    response = await served.admin.get("/admin/v1/events?limit=1")
    assert [e["kind"] for e in response.json()["items"]] == ["ready"]

    status = PlatformView.model_validate((await served.admin.get("/admin/v1/status")).json())
    assert (status.gateways, status.pools[0].hosts, status.pools[0].hosts_free) == (1, 1, 0)
    assert (status.models[0].engines_ready, status.models[0].queued) == (1, 3)


async def test_admin_api_keeps_the_log_of_an_engine_that_failed(
    served: Served, tmp_path: Path
) -> None:
    log = tmp_path / "engine.log"
    log.write_text("boom\n")
    host = await served.host("h1")
    await served.deploy(scaling={"min": 1})
    await host.told_to_run()
    assert host.assignment.engine is not None
    engine_id = host.assignment.engine.engine_id
    await host.report(EnginePhase.FAILED, error="it broke", hint="mend it", log_path=str(log))
    await host.poll()
    assert (await served.admin.get(f"/admin/v1/engines/{engine_id}/log")).text == "boom\n"
    model = (await served.admin.get("/admin/v1/models/guide")).json()
    assert "it broke (mend it)" in model["reason"]
    events = (await served.admin.get("/admin/v1/events")).json()["items"]
    assert any("it broke (mend it)" in e["message"] for e in events)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "Guide", "source": "builtin://guide"}, "name"),
        ({"name": "guide", "source": "builtin://guide", "shape": 1}, "shape"),
        ({"name": "guide"}, "source"),
        ({"name": "guide", "source": "builtin://nothing"}, "source"),
        ({"name": "guide", "source": "builtin://guide", "scaling": {"max": 3}}, "scaling.max"),
        (
            {"name": "guide", "source": "builtin://guide", "resources": {"memory_gib": 8000}},
            "resources.memory_gib",
        ),
        (
            {"name": "guide", "source": "builtin://guide", "engine": {"kv_cache_gib": 4000}},
            "engine.kv_cache_gib",
        ),
        (
            {
                "name": "guide",
                "source": "hf://org/name",
                "resources": {"accelerator": "h200", "gpus": 8},
            },
            "resources.accelerator",
        ),
        ([], None),
    ],
)
async def test_admin_api_refuses_a_bad_manifest_naming_the_field(
    served: Served, body: Any, param: str | None
) -> None:
    response = await served.admin.post("/admin/v1/models", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == param
    assert (await served.admin.get("/admin/v1/models")).json() == {"items": []}


async def test_admin_api_names_the_shapes_that_there_are(served: Served) -> None:
    response = await served.deploy(resources={"accelerator": "h200", "gpus": 8})
    assert "no pool h200x8; this platform has: cpu" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"nan", b"[" * 100_000])
async def test_admin_api_refuses_what_is_no_json(served: Served, body: bytes) -> None:
    response = await served.admin.post("/admin/v1/models", content=body)
    assert response.status_code == 400
    assert "not valid JSON" in response.json()["error"]["message"]


async def test_admin_api_caps_the_body(served: Served) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 65536

    for content in (b"x" * (2**20 + 1), endless()):
        response = await served.admin.post("/admin/v1/models", content=content)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"


async def test_admin_api_wants_an_admin_key(served: Served) -> None:
    for path in ("status", "models", "engines", "hosts", "events", "models/guide"):
        missing = await served.anonymous.get(f"/admin/v1/{path}")
        assert (missing.status_code, missing.json()["error"]["code"]) == (401, "invalid_api_key")
        assert missing.headers["www-authenticate"] == "Bearer"
        wrong = await served.anonymous.get(
            f"/admin/v1/{path}", headers={"authorization": "Bearer pa-the-operato"}
        )
        assert wrong.status_code == 401
        tenant = await served.tenant.get(f"/admin/v1/{path}")
        assert (tenant.status_code, tenant.json()["error"]["code"]) == (403, "forbidden")
    assert (await served.tenant.post("/admin/v1/models", json={})).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/admin/v1/nothing", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("PUT", "/admin/v1/models", 405, "method_not_allowed"),
        ("GET", "/internal/v1/demand", 405, "method_not_allowed"),
        ("GET", "/admin/v1/events?limit=0", 400, None),
        ("GET", "/admin/v1/events?limit=many", 400, None),
        ("GET", "/admin/v1/engines/eng-none/log", 404, "not_found"),
        ("GET", "/admin/v1/engines/eng-none/log?tail=-1", 400, None),
    ],
)
async def test_admin_api_answers_errors_in_one_shape(
    served: Served, method: str, path: str, status: int, code: str | None
) -> None:
    response = await served.admin.request(method, path)
    error = response.json()["error"]
    assert response.status_code == status
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code


async def test_admin_api_describes_itself_and_nothing_internal(served: Served) -> None:
    response = await served.anonymous.get("/admin/v1/openapi.json")
    paths = response.json()["paths"]
    assert "/admin/v1/models/{name}" in paths
    assert all(path.startswith(("/admin/v1", "/v1/organization")) for path in paths)
    body = paths["/admin/v1/models"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"].keys() >= {"name", "source", "scaling"}


async def test_controller_tells_its_health_and_metrics_without_a_key(served: Served) -> None:
    await served.deploy()
    await served.route_that(lambda route: True)
    assert (await served.anonymous.get("/health")).json() == {"status": "ok"}
    text = (await served.anonymous.get("/metrics")).text
    assert 'penstock_engines_wanted{model="guide"} 0.0' in text
    assert 'penstock_hosts{pool="cpu",state="free"} 0.0' in text


async def test_admin_api_answers_503_and_serves_on_while_the_database_is_away(
    served: Served, database_url: str
) -> None:
    await served.deploy()
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        for table in ("events", "revisions", "models", "keys"):
            await connection.execute(text(f"ALTER TABLE {table} RENAME TO {table}_away"))
    for response in (await served.deploy("other"), await served.admin.get("/admin/v1/events")):
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "database_unavailable"
        assert "sqlite3" not in response.text
    assert len((await served.admin.get("/admin/v1/models")).json()["items"]) == 1
    assert (await served.routes()).models[0].name == "guide"
    async with engine.begin() as connection:
        for table in ("events", "revisions", "models", "keys"):
            await connection.execute(text(f"ALTER TABLE {table}_away RENAME TO {table}"))
    await engine.dispose()
    assert (await served.deploy("other")).status_code == 201
    kinds = [e["kind"] for e in (await served.admin.get("/admin/v1/events")).json()["items"]]
    assert kinds == ["deployed", "deployed"]
