"""`/admin/v1`: what operators see and do, described in OpenAPI; see `serving.views`."""

import asyncio
import os
import time
from pathlib import Path
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from models.errors import BadRequestError, NotFoundError
from models.manifest import Manifest, parse_manifest
from serving.controller import audit
from serving.controller.callers import Deed, Here, require_permission
from serving.controller.deploys import admit, planned
from serving.controller.http import read_body
from serving.controller.scaling_api import warnings_of
from serving.controller.views import (
    engine_views,
    event_view,
    host_views,
    model_view,
    platform_view,
    revision_views,
    start_view,
)
from serving.views import (
    Applied,
    EngineView,
    EventView,
    HostView,
    Items,
    ModelView,
    PlatformView,
    RevisionView,
    StartView,
)

MAX_BODY_BYTES = 2**20
MAX_LOG_BYTES = 2**20
ROUTED_WITHIN_S = 1.0
"""A deploy is answered once gateways are told of the model, or after this time."""

router = APIRouter(prefix="/admin/v1", dependencies=[Depends(require_permission)])


@router.get("/status")
async def get_status(here: Here) -> PlatformView:
    """The platform at a glance."""
    return platform_view(here)


@router.get("/models")
async def list_models(here: Here) -> Items[ModelView]:
    """All deployed models."""
    return Items(items=[model_view(here, model) for model in here.registry.models()])


@router.post(
    "/models",
    response_model=Applied,
    responses={201: {"model": Applied, "description": "A model that was not deployed before."}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": Manifest.model_json_schema()}},
        }
    },
)
async def apply_model(
    request: Request,
    here: Here,
    deed: Deed,
    if_revision: Annotated[int | None, Query(ge=0)] = None,
    dry_run: bool = False,
) -> Response:
    """Deploys a manifest: a new revision, or nothing where it is the current one already."""
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequestError(f"the body is not valid JSON: {exc}") from exc
    admitted = await admit(here, parse_manifest(document))
    manifest = admitted.manifest
    if dry_run:
        return JSONResponse(planned(here, admitted).model_dump(mode="json", exclude_unset=True))
    note = audit.noting(deed, "model.deploy", manifest.name, after=manifest)
    result = await here.registry.apply(
        manifest, time.time(), if_revision, author=deed.actor.name, note=note
    )
    if result.changed:
        message = f"revision {result.revision}: {manifest.source}"
        here.events.record("deployed", message, model=manifest.name)
    await here.scaling.guess(here.registry.get(manifest.name))
    here.loop.changed(manifest.name)
    await here.loop.routes.named(manifest.name, ROUTED_WITHIN_S)
    applied = Applied(
        model=manifest.name,
        revision=result.revision,
        changed=result.changed,
        warnings=[
            *admitted.warnings,
            *warnings_of(here, here.registry.get(manifest.name), manifest),
        ],
        manifest=manifest,
    )
    shown = applied.model_dump(mode="json", exclude_unset=True)
    return JSONResponse(shown, 201 if result.is_new else 200)


@router.get("/models/{name}")
async def get_model(name: str, here: Here) -> ModelView:
    """One model."""
    return model_view(here, here.registry.get(name))


@router.delete("/models/{name}", status_code=204)
async def delete_model(name: str, here: Here, deed: Deed) -> None:
    """Takes a model out of service; its engines drain and stop."""
    await here.registry.delete(name, audit.noting(deed, "model.delete", name))
    here.events.record("deleted", "taken out of service", model=name)
    here.loop.changed(name)


@router.get("/models/{name}/revisions")
async def list_revisions(name: str, here: Here) -> Items[RevisionView]:
    """All revisions of a model, oldest first."""
    return Items(items=revision_views(here.registry.get(name)))


@router.get("/models/{name}/starts")
async def list_starts(name: str, here: Here) -> Items[StartView]:
    """The last starts of a model's engines with their phases, newest last; failed ones too."""
    here.registry.get(name)
    return Items(items=[start_view(trace) for trace in here.loop.traces.of(name)])


@router.get("/engines")
async def list_engines(here: Here) -> Items[EngineView]:
    """All engines that live."""
    return Items(items=engine_views(here))


@router.get("/engines/{engine_id}/log", response_class=PlainTextResponse)
async def get_log(
    engine_id: str, here: Here, tail: Annotated[int, Query(ge=1, le=10_000)] = 200
) -> PlainTextResponse:
    """The last lines of an engine's log; of engines that are gone too, for a while."""
    engine = here.loop.fleet.find_engine(engine_id)
    if engine is None:
        raise NotFoundError(f"there is no engine {engine_id}", hint="penstock get engines")
    path = None if engine.report is None else engine.report.log_path
    if path is None:
        raise NotFoundError(f"engine {engine_id} has no log yet")
    try:
        text = await asyncio.to_thread(_tail, Path(path), tail)
    except OSError as exc:
        raise NotFoundError(
            f"the log of engine {engine_id} cannot be read here; it is {path} on node {engine.node}"
        ) from exc
    return PlainTextResponse(text)


@router.get("/hosts")
async def list_hosts(here: Here) -> Items[HostView]:
    """All hosts that live."""
    return Items(items=host_views(here, time.monotonic()))


@router.get("/events")
async def list_events(
    here: Here,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    model: str | None = None,
) -> Items[EventView]:
    """The newest events, newest last; those of one model where it is given."""
    await here.events.flush()
    return Items(items=[event_view(e) for e in await here.store.events(limit, model)])


def _tail(path: Path, lines: int) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_LOG_BYTES))
        last = file.read().splitlines(keepends=True)[-lines:]
    return b"".join(last).decode("utf-8", "replace")
