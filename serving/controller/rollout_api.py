"""`/admin/v1/models/{name}/rollout`: how far a revision has got, and the way back."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from models.errors import ConflictError, NotFoundError
from serving.controller import audit
from serving.controller.callers import Deed, Here, require_permission
from serving.controller.canary import Figures, percentile_s
from serving.controller.context import Controller
from serving.controller.placement import Life
from serving.controller.registry import DeployedModel
from serving.rollout import CanaryView, FiguresView, RolloutView
from serving.views import Applied

router = APIRouter(
    prefix="/admin/v1/models/{name}/rollout", dependencies=[Depends(require_permission)]
)


@router.get("")
async def get_rollout(name: str, here: Here) -> RolloutView:
    """How far the current revision of a model has got."""
    return _view(here, here.registry.get(name))


@router.post("/undo")
async def undo(
    name: str, here: Here, deed: Deed, to: Annotated[int | None, Query(ge=1)] = None
) -> Applied:
    """Deploys an earlier revision's manifest again, at once and without a canary.

    By default the one before the current one; where a canary is on its way, the one that still
    takes the rest.
    """
    model = here.registry.get(name)
    canary = here.loop.rollouts.of(name)
    number = to or (model.revision - 1 if canary is None else canary.stable)
    manifest = model.manifest_of(number)
    if manifest is None and to is None:
        raise ConflictError(
            f"{name} has one revision only: there is nothing to undo",
            hint=f"`penstock rollout history {name}` lists its revisions",
        )
    if manifest is None:
        raise NotFoundError(
            f"{name} has no revision {number}",
            param="to",
            hint=f"`penstock rollout history {name}` lists its revisions",
        )
    if manifest == model.manifest:
        return Applied(model=name, revision=model.revision, changed=False)
    result = await here.registry.apply(
        manifest,
        deed.at,
        if_revision=model.revision,
        author=deed.actor.name,
        note=audit.noting(deed, "model.undo", name, before=model.manifest, after=manifest),
    )
    # Before the loop can look at it: nothing was awaited since the registry has it.
    here.loop.rollouts.skip(name, result.revision)
    here.events.record(
        "rolled_back", f"revision {result.revision} is revision {number} again", model=name
    )
    here.loop.changed(name)
    return Applied(model=name, revision=result.revision, changed=True)


@router.post("/pause")
async def pause(name: str, here: Here, deed: Deed) -> RolloutView:
    """Leaves a canary at its share of the requests, and old engines where they are."""
    return await _hold(name, here, deed, paused=True)


@router.post("/resume")
async def resume(name: str, here: Here, deed: Deed) -> RolloutView:
    """Lets a rollout go on."""
    return await _hold(name, here, deed, paused=False)


async def _hold(name: str, here: Controller, deed: Deed, *, paused: bool) -> RolloutView:
    model = here.registry.get(name)
    others = any(not model.has_engine_of(e.revision) for e in here.loop.fleet.bound(name))
    replaces = model.revision if others else None
    rollouts = here.loop.rollouts
    if not rollouts.can_pause(name, paused, replaces=replaces):
        raise _nothing_to_hold(name, paused=paused)
    # First what can fail: a deed that is not in the log is not done. The rollout may end meanwhile.
    async with here.store.transaction() as db:
        await audit.write(db, deed, "rollout.pause" if paused else "rollout.resume", name)
    if not rollouts.pause(name, paused, replaces=replaces):
        raise _nothing_to_hold(name, paused=paused)
    here.loop.kick()
    return _view(here, model)


def _nothing_to_hold(name: str, *, paused: bool) -> ConflictError:
    return ConflictError(
        f"{name} has no rollout on its way" if paused else f"no rollout of {name} is paused",
        hint=f"`penstock rollout status {name}` says how its revision stands",
    )


def _view(here: Controller, model: DeployedModel) -> RolloutView:
    loop, name = here.loop, model.name
    mine = [e for e in loop.fleet.bound(name) if model.has_engine_of(e.revision)]
    others = len(loop.fleet.bound(name)) - len(mine)
    ready = sum(engine.life is Life.READY for engine in mine)
    canary = _canary(here, model)
    wanted = loop.targets.of(name)
    return RolloutView(
        model=name,
        revision=model.revision,
        done=canary is None and ready >= wanted and not others,
        engines_wanted=wanted,
        ready=ready,
        starting=sum(engine.life is Life.STARTING for engine in mine),
        old=others,
        reason=loop.standing(name).reason,
        failed=not ready and loop.has_failed(name),
        paused=loop.rollouts.is_held(name),
        canary=canary,
    )


def _canary(here: Controller, model: DeployedModel) -> CanaryView | None:
    rollouts = here.loop.rollouts
    canary, spec = rollouts.of(model.name), model.manifest.rollout.canary
    if canary is None or spec is None:
        return None
    return CanaryView(
        stable=canary.stable,
        share=rollouts.share(model.name),
        step=canary.step + 1,
        steps=len(spec.steps),
        paused=canary.paused,
        why=rollouts.why(model.name),
        old=_figures(canary.old),
        new=_figures(canary.new),
    )


def _figures(figures: Figures) -> FiguresView:
    return FiguresView(
        answered=figures.answered,
        failed=figures.failed,
        ttft_p95_s=percentile_s(figures.ttft) if figures.ttft else None,
        tpot_p95_s=percentile_s(figures.tpot) if figures.tpot else None,
    )
