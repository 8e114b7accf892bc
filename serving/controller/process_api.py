"""What the controller's process tells of itself: that it serves, and its metrics."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from serving.controller.context import Controller, controller_of

TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(include_in_schema=False)


@router.get("/health")
async def health() -> dict[str, str]:
    """Answers while the process serves."""
    return {"status": "ok"}


@router.get("/healthz")
async def healthz(here: Annotated[Controller, Depends(controller_of)]) -> dict[str, str]:
    """Answers while the process serves, and tells what it is ready for."""
    return {"status": "ok", "ready": "standby" if here.standby else "leader"}


@router.get("/metrics")
async def metrics(here: Annotated[Controller, Depends(controller_of)]) -> Response:
    """All metrics, for Prometheus; those of the engines too, which ask for a token.

    A standby tells only that it is one: of models and engines it knows nothing.
    """
    if here.standby:
        return Response(here.telemetry.render_standby(), media_type=TEXT_FORMAT)
    loop, states = here.loop, here.telemetry.states
    standings = {model.name: loop.standing(model.name).state for model in here.registry.models()}
    states.read_models(loop.fleet, standings, loop.targets.lasts())
    states.read_hosts(loop.fleet, here.settings.pools)
    states.read_gpus(loop.fleet)
    states.read_keys(here.identities.keys())
    text = here.telemetry.render(loop.fleet, loop.targets.all(), here.settings.pools)
    text += await here.telemetry.federation.collect(loop.fleet)
    return Response(text, media_type=TEXT_FORMAT)
