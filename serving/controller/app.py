"""The controller's process: wires its parts and serves them.

    PENSTOCK_INTERNAL_TOKEN=... python -m serving.controller.app

On its standard error each line is a JSON object; `"event": "listening"` bears `host` and `port`.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import httpx
import psutil
import uvloop
from fastapi import FastAPI

from models.errors import PenstockError
from serving.background import cancel
from serving.controller import (
    adapters_api,
    admin,
    cost_api,
    internal,
    process_api,
    rollout_api,
    rule_api,
    scaling_api,
    tenant_api,
    usage_api,
)
from serving.controller.context import Controller
from serving.controller.events import EventLog
from serving.controller.fleet_hours import FleetHours, Use, uses_of
from serving.controller.http import install_error_handlers
from serving.controller.identities import Identities
from serving.controller.leader_career import pursued
from serving.controller.leader_door import LeaderDoor
from serving.controller.leader_setup import turns_of
from serving.controller.leader_term import Term
from serving.controller.loop import GRACE_S, SUCCESSOR_GRACE_S, ControlLoop, alone
from serving.controller.manifest_folder import ManifestFolder
from serving.controller.moment import now
from serving.controller.pool_sizes import check_pools
from serving.controller.pools import PoolKeeper
from serving.controller.registry import GIB, Limits, Registry
from serving.controller.rollout_keeper import RolloutKeeper
from serving.controller.scaling_log import ScalingLog
from serving.controller.server import Server, listen
from serving.controller.store import Store
from serving.controller.telemetry import Telemetry
from serving.controller.trace_log import TraceLog
from serving.controller.traces import Trace
from serving.controller.usage_keeper import UsageKeeper
from serving.controller.views import our_version
from serving.logs import configure, get_logger
from serving.open_files import allow_many
from serving.settings import ControllerSettings

log = get_logger(__name__)


def create_app(
    settings: ControllerSettings, ray_transport: httpx.AsyncBaseTransport | None = None
) -> FastAPI:
    """The controller as an ASGI application; it lives from lifespan's start to its end."""

    def show(controller: Controller) -> None:
        app.state.controller = controller

    def lead(term: Term) -> AbstractAsyncContextManager[Controller]:
        return running(settings, ray_transport, term)

    turns = None if settings.leader_lease_s is None else turns_of(settings, lead, show)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if turns is not None:
            async with pursued(turns):
                yield
            return
        async with running(settings, ray_transport) as controller:
            show(controller)
            yield

    app = FastAPI(
        title="Penstock admin API",
        version=our_version(),
        lifespan=lifespan,
        openapi_url="/admin/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    if turns is not None:
        token = settings.internal_token.get_secret_value()
        app.add_middleware(LeaderDoor, standing=turns, token=token)
    install_error_handlers(app)
    for router in (
        admin.router,
        scaling_api.router,
        rollout_api.router,
        adapters_api.router,
        tenant_api.router,
        rule_api.router,
        cost_api.admin,
        cost_api.organization,
        usage_api.admin,
        usage_api.organization,
        internal.router,
        usage_api.internal,
        process_api.router,
    ):
        # As they are: include_router would take each route apart again, which takes 0.1 s in all.
        app.router.routes.extend(router.routes)
    return app


@asynccontextmanager
async def running(
    settings: ControllerSettings,
    ray_transport: httpx.AsyncBaseTransport | None = None,
    term: Term | None = None,
) -> AsyncIterator[Controller]:
    """Opens the store, starts the background tasks, and ends them.

    With a `term`, for as long as that lasts, this controller leads others.
    """
    async with AsyncExitStack() as stack:
        store = await Store.open(settings.database_url)
        stack.push_async_callback(store.close)
        may_act, grace_s = alone, GRACE_S
        if term is not None:
            term.guard(store)
            may_act, grace_s = term.leads, SUCCESSOR_GRACE_S
            ray_transport = term.transport(ray_transport)
        limits = Limits(settings.pools, memory_gib=psutil.virtual_memory().total / GIB)
        registry = Registry(store, limits)
        await registry.load()
        identities = Identities(store)
        await identities.refresh()
        events = EventLog(store)
        stack.push_async_callback(_flush, events)
        telemetry = Telemetry()
        loop = ControlLoop(settings, registry, events, telemetry, now, may_act, grace_s)
        scaling = ScalingLog(
            store, registry, loop.targets, loop.recorded, profiles=settings.profiles_dir
        )
        await scaling.restore()
        controller = Controller(
            settings, store, registry, identities, events, telemetry, loop, scaling
        )
        starts = TraceLog(store, loop.traces, await stack.enter_async_context(_spans(settings)))
        await starts.restore()
        await controller.shares.restore()
        rollouts = RolloutKeeper(controller)
        await rollouts.restore()
        await stack.enter_async_context(_database_tasks(controller, starts, rollouts))
        tasks: list[Coroutine[None, None, None]] = [loop.run()]
        if settings.ray_dashboard_url is not None:
            keeper = PoolKeeper(
                loop.pools.sizes,
                settings.ray_dashboard_url,
                settings.ray_token_path,
                events,
                ray_transport,
            )
            loop.pools.on_change = keeper.wake
            stack.push_async_callback(keeper.close)
            tasks.append(keeper.run())
        if settings.manifests_dir is not None:
            folder = ManifestFolder(settings.manifests_dir, registry, events, loop.changed)
            tasks.append(folder.run())
        await stack.enter_async_context(_in_background(controller, tasks))
        yield controller
        controller.close_polls()


async def _flush(events: EventLog) -> None:
    with contextlib.suppress(PenstockError):
        await events.flush()


@asynccontextmanager
async def _spans(settings: ControllerSettings) -> AsyncIterator[Callable[[Trace], None]]:
    """What is called with each start that is whole; what it has to send is sent at the end."""
    endpoint = settings.otlp_endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        yield lambda trace: None
        return
    from serving.controller.spans import SpanSender

    sender = SpanSender(endpoint)
    try:
        yield sender
    finally:
        await asyncio.to_thread(sender.close)


def _usage_keeper(controller: Controller) -> UsageKeeper:
    return UsageKeeper(
        controller.store,
        controller.usage,
        controller.settings.usage_retention_days,
        controller.telemetry.registry,
    )


def _uses(controller: Controller) -> list[Use]:
    in_flight = controller.loop.gateways.in_flight()
    return uses_of(controller.loop.fleet, in_flight, controller.settings.capacity)


@asynccontextmanager
async def _database_tasks(
    controller: Controller, starts: TraceLog, rollouts: RolloutKeeper
) -> AsyncIterator[None]:
    """Writes events and reads keys meanwhile; lets the last query end before the store closes."""
    stop = asyncio.Event()
    tasks = [
        _spawn(controller, controller.events.run(stop)),
        _spawn(controller, _usage_keeper(controller).run(stop)),
        _spawn(controller, controller.identities.run(stop)),
        _spawn(controller, controller.shares.run(stop)),
        _spawn(controller, FleetHours(controller.store, lambda: _uses(controller)).run(stop)),
        _spawn(controller, starts.run(stop)),
        _spawn(controller, rollouts.run(stop)),
        _spawn(controller, controller.scaling.run(stop)),
    ]
    try:
        yield
    finally:
        stop.set()
        controller.events.wake()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _in_background(
    controller: Controller, work: list[Coroutine[None, None, None]]
) -> AsyncIterator[None]:
    """Runs the coroutines meanwhile, and cancels them."""
    tasks = [_spawn(controller, coroutine) for coroutine in work]
    try:
        yield
    finally:
        await cancel(*tasks)


def _spawn(controller: Controller, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """A task that takes the process along if it dies: the process is restarted then."""

    def note_death(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.critical("background_task_died", exc_info=exc)
            controller.broken = True

    task = asyncio.create_task(coroutine)
    task.add_done_callback(note_death)
    return task


async def serve(settings: ControllerSettings) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status.

    Raises:
        PenstockError: If it cannot start: port, database or settings.
    """
    check_pools(settings)
    sock = listen(settings.controller_host, settings.controller_port)
    try:
        # Opened once before: a failure inside the server's start would be shown as a traceback.
        store = await Store.open(settings.database_url)
        await store.close()
        app = create_app(settings)
        await Server(app).serve(sockets=[sock])
        return 1 if app.state.controller.broken else 0
    finally:
        sock.close()


def main() -> int:
    """The process; returns its exit status."""
    configure("controller")
    allow_many()
    try:
        return uvloop.run(serve(ControllerSettings.load()))
    except PenstockError as exc:
        log.error("cannot_start", error=str(exc), param=exc.param, hint=exc.hint)
        return exc.exit_code


if __name__ == "__main__":
    sys.exit(main())
