"""The internal API over HTTP: what gateways and hosts live through."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from serving.controller.app import create_app
from serving.controller.keys import ensure_keys_async
from serving.protocol import POLL_S, EnginePhase, ModelState
from tests.serving.controller.served import Served, ServedHost, serve
from tests.serving.controller.world import engine_report, settings

READY, STARTING, FAILED = EnginePhase.READY, EnginePhase.STARTING, EnginePhase.FAILED


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    # No host is lost for its silence: the machine that runs the tests may stand still for seconds.
    async with serve(settings(database_url=database_url, host_timeout_s=600)) as served:
        yield served


async def woken(served: Served) -> ServedHost:
    """`guide` deployed, asked for, and ready on host `h1`."""
    host = await served.host("h1")
    await served.deploy()
    await served.demand(queued=1)
    await host.told_to_run()
    await host.report(STARTING)
    await host.report(READY)
    await served.route_that(lambda route: route.state is ModelState.READY)
    return host


async def test_internal_api_takes_a_model_from_deploy_to_a_route(served: Served) -> None:
    host = await served.host("h1")
    before = await served.routes()
    assert before.full
    poll = asyncio.create_task(served.routes(before.version))
    await served.deploy(scaling={"idle_timeout_s": 1})
    assert [r.state for r in (await poll).models] == [ModelState.ASLEEP]

    wait = asyncio.create_task(host.told_to_run())
    assert (await served.demand(queued=1)).leases == {}
    await wait
    engine = host.assignment.engine
    assert engine is not None
    assert engine.start_id == "req-1"

    assert await host.report(STARTING)
    assert await host.report(READY, url="http://127.0.0.1:4711", token="secret", slots=8)
    delta = await served.route_that(lambda r: bool(r.endpoints), version=before.version)
    assert not delta.full
    (endpoint,) = delta.models[0].endpoints
    assert (endpoint.url, endpoint.token, endpoint.slots, endpoint.revision) == (
        "http://127.0.0.1:4711", "secret", 8, 1,
    )  # fmt: skip
    reply = await served.demand(in_flight={engine.engine_id: 1})
    assert reply.leases == {engine.engine_id: 10}

    stop = asyncio.create_task(host.told_to_stop())
    while not stop.done():  # a gateway that reports on, without demand
        await served.demand()
        if host.assignment.engine is not None:
            await host.report(READY)
        await asyncio.wait({stop}, timeout=0.1)
    delta = await served.route_that(lambda r: not r.endpoints)
    assert delta.models[0].state is ModelState.ASLEEP


async def test_internal_api_ejects_a_failed_engine_and_binds_another_host(served: Served) -> None:
    host = await woken(served)
    other = await served.host("h2")
    version = (await served.routes()).version
    wait = asyncio.create_task(other.told_to_run())
    await served.demand(queued=1)
    await host.report(FAILED, error="killed by SIGKILL")
    delta = await served.route_that(lambda r: not r.endpoints, version=version)
    assert delta.models[0].state is ModelState.WAKING
    await wait


async def until_it_polls(served: Served, host_id: str) -> None:
    """Waits until the host's long poll has come to the controller."""
    async with asyncio.timeout(30):
        while (host := served.controller.loop.fleet.find(host_id)) is None or not host.polls:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_internal_api_notices_a_dead_host_by_its_broken_long_poll(served: Served) -> None:
    host = await woken(served)
    other = await served.host("h2")
    poll = asyncio.create_task(host.poll())
    await until_it_polls(served, "h1")
    poll.cancel()  # breaks the connection off, as a kill -9 of the host does
    wait = asyncio.create_task(other.told_to_run())
    while not wait.done():
        await served.demand(queued=1)
        await other.report(None)
        await asyncio.wait({wait}, timeout=0.2)
    assert served.controller.loop.fleet.find("h1") is None


async def test_internal_api_tells_an_unknown_host_to_register(served: Served) -> None:
    stranger = ServedHost("stranger", served)
    assert not await stranger.report(None)
    response = await served.internal.get("/internal/v1/hosts/stranger/assignment?after=0")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


async def test_internal_api_hands_keys_out_by_version(served: Served, database_url: str) -> None:
    first = await served.identities()
    assert first.full
    assert {key.role for key in first.keys} == {"admin", "inference"}
    poll = asyncio.create_task(served.identities(first.version))
    await ensure_keys_async(database_url, api_key="pk-another-tenant-key")
    changed = await poll  # made by another process: found out within a second
    assert changed.version > first.version
    assert not changed.full
    assert len(changed.keys) == len(changed.removed) == 1  # the old one and its successor
    assert {k.prefix for k in changed.keys} != {k.prefix for k in first.keys}


async def test_internal_api_wants_the_internal_token(served: Served) -> None:
    for client in (served.anonymous, served.admin, served.tenant):
        response = await client.get("/internal/v1/routes")
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("body", ["", "[]", '{"models": 3}', '{"gateway_id": "g", "models": [1]}'])
async def test_internal_api_refuses_what_is_no_message(served: Served, body: str) -> None:
    response = await served.internal.post("/internal/v1/demand", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_internal_api_survives_reports_of_engines_that_nobody_assigned(
    served: Served,
) -> None:
    host = await woken(served)
    assert host.assignment.engine is not None
    stray = engine_report(host.assignment.engine, READY, engine_id="eng-stray")
    other = await served.host("h2", engine=stray.model_copy(update={"model": "unknown"}))
    assert (await other.poll()).engine is None
    engines = (await served.admin.get("/admin/v1/engines")).json()["items"]
    assert {e["engine_id"] for e in engines} == {host.assignment.engine.engine_id, "eng-stray"}
    await other.report(None)
    engines = (await served.admin.get("/admin/v1/engines")).json()["items"]
    assert len(engines) == 1


async def test_internal_api_ends_its_long_polls_when_it_is_told_to_stop(database_url: str) -> None:
    loop = asyncio.get_running_loop()
    async with serve(settings(database_url=database_url, host_timeout_s=600)) as served:
        host = await served.host("h1")
        await host.poll()
        version = (await served.routes()).version
        polls = [
            asyncio.create_task(served.routes(version)),
            asyncio.create_task(served.identities((await served.identities()).version)),
            asyncio.create_task(host.poll()),
        ]
        await until_it_polls(served, "h1")
        assert not any(poll.done() for poll in polls)
        served.controller.close_polls()
        began = loop.time()
        await asyncio.gather(*polls)
        assert loop.time() - began < POLL_S - 5.0  # after POLL_S they would end by themselves


async def test_controller_adopts_what_runs_after_a_restart(database_url: str) -> None:
    async with serve(settings(database_url=database_url)) as served:
        host = await woken(served)
        version = (await served.routes()).version
    assert host.assignment.engine is not None
    ran = engine_report(host.assignment.engine, READY)
    async with serve(settings(database_url=database_url)) as served:
        poll = asyncio.create_task(served.routes(version))
        await asyncio.sleep(0.3)
        assert not poll.done()  # gateways keep their table until the hosts are back
        host = await served.host("h1", engine=ran)
        await served.host("h2")
        delta = await poll
        assert delta.version > version
        assert [e.engine_id for e in delta.models[0].endpoints] == [ran.engine_id]
        assignment = await host.poll()
        assert assignment.engine is not None
        assert assignment.engine.engine_id == ran.engine_id
        kinds = [e["kind"] for e in (await served.admin.get("/admin/v1/events")).json()["items"]]
        assert kinds.count("woken") == 1


async def test_controller_answers_long_polls_over_asgi_without_a_server(database_url: str) -> None:
    """As in-process tests of other parts use it."""
    app = create_app(settings(database_url=database_url))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://controller",
            headers={"authorization": "Bearer internal-token"},
        ) as client,
    ):
        response = await client.get("/internal/v1/routes")
        assert response.json()["full"] is True
