"""Rollouts through the admin API, against a controller that runs."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from models.errors import ModelFailedError
from serving.cli import output
from serving.cli.client import AdminClient
from serving.cli.follow import Follower
from serving.controller.starts import FAILED_AFTER
from serving.protocol import EnginePhase, ModelState
from serving.views import Applied, ModelView
from tests.serving.controller.served import ADMIN_KEY, Served, ServedHost, serve
from tests.serving.controller.test_rollouts import CANARY, other
from tests.serving.controller.world import settings

ALWAYS = {"min": 1, "max": 1, "idle_timeout_s": 600}


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(settings(database_url=database_url, host_timeout_s=600)) as served:
        yield served


async def test_undo_goes_back_and_says_who(served: Served) -> None:
    await served.deploy()
    nothing = await served.admin.post("/admin/v1/models/guide/rollout/undo")
    assert nothing.status_code == 409
    assert "nothing to undo" in nothing.json()["error"]["message"]
    await served.deploy(engine={"max_num_seqs": 9})
    done = (await served.admin.post("/admin/v1/models/guide/rollout/undo")).json()
    assert (done["revision"], done["changed"]) == (3, True)
    listed = (await served.admin.get("/admin/v1/models/guide/revisions")).json()["items"]
    assert listed[2]["manifest"] == listed[0]["manifest"]
    assert all(one["author"] for one in listed)
    again = await served.admin.post("/admin/v1/models/guide/rollout/undo", params={"to": 1})
    assert again.json()["changed"] is False
    missing = await served.admin.post("/admin/v1/models/guide/rollout/undo", params={"to": 9})
    assert missing.status_code == 404
    view = (await served.admin.get("/admin/v1/models/guide/rollout")).json()
    assert (view["revision"], view["canary"]) == (3, None)


async def serving(served: Served) -> list[ServedHost]:
    """Two hosts, of which one has an engine of the first revision."""
    hosts = [await served.host("h1"), await served.host("h2")]
    await served.deploy(scaling=ALWAYS)
    fleet = served.controller.loop.fleet
    while not fleet.bound():  # noqa: ASYNC110  # the loop runs by itself
        await asyncio.sleep(0.01)
    (bound,) = fleet.bound()
    # The other one is not asked yet: who gives a poll up seems to be on its way out.
    first = await next(host for host in hosts if host.host_id == bound.host_id).told_to_run()
    await first.report(EnginePhase.READY)
    await served.route_that(lambda route: bool(route.endpoints))
    return sorted(hosts, key=lambda host: host is not first)


async def test_undo_that_fails_spares_no_later_revision_its_canary(
    served: Served, database_url: str
) -> None:
    await serving(served)
    await served.deploy(scaling={**ALWAYS, "max": 2})
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE revisions RENAME TO away"))
    failed = await served.admin.post("/admin/v1/models/guide/rollout/undo")
    assert failed.status_code == 503
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO revisions"))
    await engine.dispose()
    assert (await served.deploy(**other())).json()["revision"] == 3
    rollouts = served.controller.loop.rollouts
    async with asyncio.timeout(30):
        while (canary := rollouts.of("guide")) is None:  # noqa: ASYNC110  # the loop runs by itself
            await asyncio.sleep(0.01)
    assert (canary.stable, canary.candidate) == (2, 3)


def follow(served: Served, revision: int) -> ModelView:
    """As `penstock deploy` does once the manifest is sent."""
    applied = Applied(model="guide", revision=revision, changed=True)
    with AdminClient(str(served.admin.base_url), ADMIN_KEY) as admin:
        (model,) = Follower(admin, output.stderr(), 60.0, lambda _: time.sleep(0.02)).wait(
            [applied]
        )
    return model


async def test_deploy_waits_for_the_new_revision_and_not_for_the_old_one(served: Served) -> None:
    _, second = await serving(served)
    await served.deploy(engine={"max_num_seqs": 9}, scaling=ALWAYS)
    waiting = asyncio.create_task(asyncio.to_thread(follow, served, 2))
    await second.told_to_run()
    assert not waiting.done()
    await second.report(EnginePhase.READY)
    model = await waiting
    assert (model.state, model.revision) == (ModelState.READY, 2)


@pytest.mark.parametrize("canary", [None, CANARY])
async def test_deploy_ends_with_why_the_new_revision_does_not_start(
    served: Served, canary: dict[str, Any] | None, capfd: pytest.CaptureFixture[str]
) -> None:
    _, second = await serving(served)
    rollout = {"canary": canary}
    await served.deploy(engine={"max_num_seqs": 9}, scaling=ALWAYS, rollout=rollout)
    waiting = asyncio.create_task(asyncio.to_thread(follow, served, 2))
    for _ in range(FAILED_AFTER):
        await second.told_to_run()
        await second.report(EnginePhase.FAILED, error="out of memory")
        await second.told_to_stop()
        await second.report(None)
    with pytest.raises(ModelFailedError, match="out of memory"):
        await waiting
    assert "the last start failed: out of memory" in capfd.readouterr().err
    (endpoint,) = (await served.routes()).models[0].endpoints
    assert endpoint.revision == 1


@pytest.mark.parametrize("canary", [None, CANARY])
async def test_pause_that_is_not_in_the_audit_log_is_not_done(
    served: Served, database_url: str, canary: dict[str, Any] | None
) -> None:
    await serving(served)
    await served.deploy(**other(scaling=ALWAYS, rollout={"canary": canary}))
    rollouts, path = served.controller.loop.rollouts, "/admin/v1/models/guide/rollout"
    async with asyncio.timeout(30):
        while canary and rollouts.of("guide") is None:  # noqa: ASYNC110  # the loop runs by itself
            await asyncio.sleep(0.01)
    engine = create_async_engine(database_url)

    async def rename(audit: str, other: str) -> None:
        async with engine.begin() as connection:
            await connection.execute(text(f"ALTER TABLE {audit} RENAME TO {other}"))

    async def is_paused() -> bool:
        view = (await served.admin.get(path)).json()
        return bool((view["canary"] or view)["paused"])

    for verb, before in (("pause", False), ("resume", True)):
        await rename("audit", "away")
        assert (await served.admin.post(f"{path}/{verb}")).status_code == 503
        assert await is_paused() is before
        await rename("away", "audit")
        assert (await served.admin.post(f"{path}/{verb}")).status_code == 200
        assert await is_paused() is not before
    await engine.dispose()


async def test_pause_without_a_rollout_is_told(served: Served) -> None:
    await served.deploy()
    answer = await served.admin.post("/admin/v1/models/guide/rollout/pause")
    assert answer.status_code == 409
    assert "no rollout on its way" in answer.json()["error"]["message"]
    answer = await served.admin.post("/admin/v1/models/guide/rollout/resume")
    assert "no rollout of guide is paused" in answer.json()["error"]["message"]
