"""`/admin/v1/models/{name}/adapters`: a model's LoRA adapters; see `serving.adapters`."""

from typing import Any

from fastapi import APIRouter, Depends

from models.adapters_spec import served_name
from models.errors import NotFoundError
from models.manifest import AdapterSpec, Manifest, parse_manifest
from serving.adapters import AdapterView, NewAdapter
from serving.controller import audit
from serving.controller.callers import Deed, Here, require_permission
from serving.controller.context import Controller
from serving.controller.deploys import admit
from serving.controller.placement import Life
from serving.controller.registry import DeployedModel
from serving.views import Applied, Items

router = APIRouter(
    prefix="/admin/v1/models/{name}/adapters", dependencies=[Depends(require_permission)]
)


@router.get("")
async def list_adapters(name: str, here: Here) -> Items[AdapterView]:
    """A model's adapters, and how far its engines are with each."""
    model = here.registry.get(name)
    return Items(items=[_view(here, model, spec) for spec in model.manifest.adapters])


@router.put("/{adapter}")
async def put_adapter(name: str, adapter: str, new: NewAdapter, here: Here, deed: Deed) -> Applied:
    """Adds an adapter, or gives it another source. Engines that run load it, none is restarted;
    where they have no room for adapters yet, a rolling revision makes some."""
    model = here.registry.get(name)
    spec: dict[str, Any] = {"name": adapter, "source": new.source}
    others = [_plain(one) for one in model.manifest.adapters if one.name != adapter]
    return await _apply(here, deed, model, _with(model.manifest, [*others, spec]), adapter)


@router.delete("/{adapter}")
async def delete_adapter(name: str, adapter: str, here: Here, deed: Deed) -> Applied:
    """Takes an adapter out of service; the engines stay, and their room for adapters with them."""
    model = here.registry.get(name)
    left = [_plain(one) for one in model.manifest.adapters if one.name != adapter]
    if len(left) == len(model.manifest.adapters):
        raise NotFoundError(
            f"{name} has no adapter {adapter!r}",
            param="adapter",
            hint=f"`penstock adapter list {name}` lists them",
        )
    return await _apply(here, deed, model, _with(model.manifest, left), adapter)


async def _apply(
    here: Controller, deed: Deed, model: DeployedModel, manifest: Manifest, adapter: str
) -> Applied:
    admitted = await admit(here, manifest)
    note = audit.noting(
        deed, "model.adapters", served_name(model.name, adapter),
        before=model.manifest, after=admitted.manifest,
    )  # fmt: skip
    result = await here.registry.apply(
        admitted.manifest,
        deed.at,
        if_revision=model.revision,
        author=deed.actor.name,
        note=note,
    )
    if result.changed:
        names = ", ".join(one.name for one in admitted.manifest.adapters) or "none"
        here.events.record(
            "adapters_changed", f"revision {result.revision}: {names}", model=model.name
        )
        here.loop.kick()
    return Applied(
        model=model.name,
        revision=result.revision,
        changed=result.changed,
        warnings=list(admitted.warnings),
    )


def _with(manifest: Manifest, adapters: list[dict[str, Any]]) -> Manifest:
    document: dict[str, Any] = manifest.model_dump(mode="json", exclude_unset=True)
    return parse_manifest(document | {"adapters": adapters})


def _plain(spec: AdapterSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json")


def _view(here: Controller, model: DeployedModel, spec: AdapterSpec) -> AdapterView:
    engines = [e for e in here.loop.fleet.bound(model.name) if e.life is Life.READY]
    told = [
        report
        for engine in engines
        if engine.report is not None
        for report in engine.report.adapters
        if report.name == spec.name
    ]
    fault = next((report for report in told if report.error), None)
    return AdapterView(
        name=spec.name,
        served=served_name(model.name, spec.name),
        source=spec.source,
        loaded=sum(report.source == spec.source for report in told),
        engines=len(engines),
        error=None if fault is None else fault.error,
        hint=None if fault is None else fault.hint,
    )
