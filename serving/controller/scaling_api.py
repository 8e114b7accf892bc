"""`/admin/v1`: the autoscaler as operators see it, and how they steer it; see `serving.scaling`."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from autoscaler.capacity import below_floor
from models.manifest import Manifest, parse_manifest
from serving.controller import audit, scaling_rows
from serving.controller.callers import Deed, Here, require_permission
from serving.controller.capacities import Kind
from serving.controller.context import Controller
from serving.controller.database import DatabaseError
from serving.controller.registry import DeployedModel
from serving.controller.sight import took_s
from serving.controller.views import decision_view
from serving.scaling import CapacityView, DemandView, ScalingChange
from serving.views import Applied, DecisionView, Items

SECONDS_MAX = 100_000
"""Of demand in one answer; the newest ones."""

router = APIRouter(prefix="/admin/v1", dependencies=[Depends(require_permission)])


@router.get("/models/{name}/decisions")
async def list_decisions(
    name: str, here: Here, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> Items[DecisionView]:
    """The last changes of a model's target, newest last, those of earlier controllers too."""
    here.registry.get(name)
    try:
        await here.scaling.flush_decisions()
        changes = await scaling_rows.read_decisions(here.store, name, limit)
    except DatabaseError:  # memory has those since the controller's own start
        changes = here.loop.targets.decisions.of(name)[-limit:]
    return Items(items=[decision_view(change) for change in changes])


@router.patch("/models/{name}/scaling")
async def change_scaling(name: str, change: ScalingChange, here: Here, deed: Deed) -> Applied:
    """Changes a model's bounds or pauses its autoscaler; no engine is restarted.

    The result is a revision like any other; the next deploy of a manifest says otherwise again.
    """
    model = here.registry.get(name)
    manifest = changed(model.manifest, change)
    result = await here.registry.apply(
        manifest,
        time.time(),
        if_revision=model.revision,  # else a deploy that is on its way would be taken back
        author=deed.actor.name,
        note=audit.noting(deed, "model.scale", name, before=model.manifest, after=manifest),
    )
    if result.changed:
        scaling = manifest.scaling
        paused = ", paused" if scaling.paused else ""
        here.events.record(
            "scaling_changed", f"min {scaling.min}, max {scaling.max}{paused}", model=name
        )
        here.loop.kick()
    return Applied(model=name, revision=result.revision, changed=result.changed)


@router.get("/models/{name}/capacity")
async def get_capacity(name: str, here: Here) -> CapacityView:
    """What one engine of the model can do, as the autoscaler sees it."""
    model = here.registry.get(name)
    known = here.loop.targets.capacities.known(Kind.of(model))
    starts = [s for trace in here.loop.traces.of(name) if (s := took_s(trace)) is not None]
    one = known.capacity
    if one is None:
        return CapacityView(source="unknown", starts_s=starts)
    return CapacityView(
        source="learned" if known.is_learned else "guessed",
        slots=one.slots,
        prefill_tps=one.prefill_tps,
        step_s=one.step_s,
        step_per_seq_s=one.step_per_seq_s,
        chunk_tokens=one.chunk_tokens,
        starts_s=starts,
    )


@router.get("/models/{name}/demand")
async def get_demand(
    name: str, here: Here, hours: Annotated[float, Query(gt=0, le=72)] = 24.0
) -> DemandView:
    """What came in for the model: counts of requests and tokens by the second, no prompts."""
    here.registry.get(name)
    found = await scaling_rows.read_demand(here.store, name, time.time() - hours * 3600)
    return DemandView(
        seconds=[
            (s.at, s.arrivals, s.prompt_tokens, s.finished, s.output_tokens)
            for s in found[-SECONDS_MAX:]
        ]
    )


def changed(manifest: Manifest, change: ScalingChange) -> Manifest:
    """The manifest with other bounds.

    Raises:
        ManifestError: If they contradict each other.
    """
    document: dict[str, Any] = manifest.model_dump(mode="json", exclude_unset=True)
    scaling = dict(document.get("scaling") or {}) | change.model_dump(exclude_none=True)
    return parse_manifest(document | {"scaling": scaling})


def warnings_of(here: Controller, model: DeployedModel, asked: Manifest) -> list[str]:
    """What the objectives of a manifest ask that no engine can give, with the floor; mostly none.

    Only of objectives that somebody wrote down, and by what is known now, be it a guess.
    """
    if "slo" not in asked.scaling.model_fields_set:
        return []
    one = here.loop.targets.capacities.of(model)
    if one is None:
        return []
    slo = asked.scaling.slo
    start_s = None if asked.scaling.min else here.loop.targets.start_s(model)
    known = here.loop.targets.capacities.known(Kind.of(model))
    source = "measured" if known.is_learned else "by the sizing planner's pessimistic guess"
    return [f"{told} ({source})" for told in below_floor(one, slo.ttft_s, slo.tpot_s, start_s)]
