"""Wires the gateway together: `python -m serving.gateway.app`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from models.errors import PenstockError
from serving import logs
from serving.background import cancel
from serving.gateway.admin import ORGANIZATION, PREFIX, AdminPassage
from serving.gateway.auth import Keyring
from serving.gateway.body_budget import BodyBudget
from serving.gateway.dispatch import GatewayApp
from serving.gateway.door import Door
from serving.gateway.engines import EngineClient
from serving.gateway.errors import answer_of_http
from serving.gateway.handover import PATIENCE_S, handover_of
from serving.gateway.keepsake import Keepsake
from serving.gateway.lanes import Lanes
from serving.gateway.limiting import Limiting
from serving.gateway.link import ControllerLink
from serving.gateway.metering import Metering
from serving.gateway.places import LaneLimits
from serving.gateway.proxy import Limits, Proxy
from serving.gateway.routes import make_router
from serving.gateway.server import run
from serving.gateway.surface import OPERATIONS
from serving.gateway.sync import Sync
from serving.gateway.telemetry import GatewayMetrics
from serving.gateway.watch import Watch
from serving.leaders import Controllers
from serving.open_files import allow_many
from serving.settings import GatewaySettings, SettingsError

if TYPE_CHECKING:
    from serving.gateway.request_spans import RequestSpans

log = logs.get_logger(__name__)


def create_app(
    settings: GatewaySettings, patience_s: float = 0.0, *, is_tolled: bool = True
) -> FastAPI:
    """The gateway as an ASGI app, which runs its background tasks for as long as its lifespan.

    Args:
        settings: Where it runs.
        patience_s: How long its start waits for a first table of models and keys.
        is_tolled: Limits and metering are on; off only to measure what they cost.
    """
    limits = Limits(
        max_body_bytes=int(settings.max_body_mib * 2**20),
        deadline_s=settings.deadline_s,
        slow_client_timeout_s=settings.slow_client_timeout_s,
        max_media_bytes=int(settings.max_media_body_mib * 2**20),
        media_domains=frozenset(domain.lower() for domain in settings.media_domains),
    )
    controllers = Controllers(settings.controller_url)
    link = ControllerLink(controllers, settings.internal_token.get_secret_value())
    keyring = Keyring()
    metrics = GatewayMetrics(settings.metrics_by_tenant)
    engines = EngineClient(wanted=b"retry-after")
    bodies = BodyBudget(int(settings.bodies_mib * 2**20))
    passage = AdminPassage(controllers, limits.max_body_bytes, bodies)
    urgent = asyncio.Event()
    in_line = LaneLimits(settings.max_queued, settings.max_queued_tokens, settings.prefill_tokens)
    lanes = Lanes(in_line, alarm=urgent.set)
    keepsake = Keepsake(settings.gateway_state_dir)
    sync = Sync(link, lanes, keyring, keepsake, urgent, Watch(lanes, engines))
    metering = Metering(sync.gateway_id, settings, link, metrics)
    limiting = Limiting(keyring, lanes, link, sync.gateway_id, settings)
    spans = _spans(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        sync.recall()
        async with AsyncExitStack() as stack:
            for part in (link, engines, passage, metering, limiting):
                await stack.enter_async_context(part)
            in_step = asyncio.create_task(sync.run())
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        while not (lanes.loaded and keyring.loaded):  # noqa: ASYNC110
                            await asyncio.sleep(0.01)
                yield
            finally:
                await cancel(in_step)
                if spans is not None:
                    await asyncio.to_thread(spans.close)

    app = GatewayApp(
        title="Penstock gateway",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={HTTPException: _on_http_exception},
    )
    app.state.keyring = keyring
    direct: dict[str, ASGIApp] = {}
    for operation in OPERATIONS:
        tolls = (limiting.toll, metering.toll) if is_tolled else ()
        proxy = Proxy(
            operation, limits, keyring, lanes, engines, metrics, bodies, tolls,
            caps=limiting.toll, spans=spans,
        )  # fmt: skip
        app.router.routes.append(Route(operation.path, proxy, methods=["POST"]))
        direct[operation.path] = Door(proxy)
    app.direct = direct
    if settings.admin_api:
        for prefix in (PREFIX, ORGANIZATION):
            app.router.routes.append(Route(prefix + "/{path:path}", passage))
    app.include_router(make_router(keyring, lanes, metrics))
    app.add_middleware(Door)
    return app


def _spans(settings: GatewaySettings) -> "RequestSpans | None":
    """Tracing of requests, where a collector is named; else none of it is imported."""
    endpoint = settings.otlp_endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return None
    try:
        from serving.gateway.request_spans import RequestSpans
    except ImportError as exc:
        raise SettingsError(
            "a collector is named, but OpenTelemetry is not installed",
            param="PENSTOCK_OTLP_ENDPOINT",
            hint="install penstock[otlp], or unset OTEL_EXPORTER_OTLP_ENDPOINT",
        ) from exc
    return RequestSpans(endpoint, settings.trace_share)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    """The router's own 404 and 405, in OpenAI's shape."""
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    allow = (exc.headers or {}).get("Allow") if isinstance(exc, HTTPException) else None
    answer = answer_of_http(status, request.method, request.url.path, allow)
    headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
    return Response(answer.body, answer.status, headers=headers, media_type="application/json")


def main() -> int:
    """Runs a gateway from its `PENSTOCK_*` settings; the exit code is 0 after a clean stop."""
    logs.configure("gateway")
    allow_many()
    try:
        settings = GatewaySettings.load()
        handover = handover_of(sys.argv[1:])
        app = create_app(settings, patience_s=PATIENCE_S if handover else 0.0)
        run(app, settings, handover)
    except PenstockError as error:
        log.error("not_started", reason=str(error), hint=error.hint)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
