"""A deploy's way from a manifest to what it would change; `admin` carries it out."""

from models.manifest import Manifest
from serving.controller.adapters_intake import admit_adapters
from serving.controller.context import Controller
from serving.controller.intake import Admitted, Intake
from serving.controller.registry import DeployedModel
from serving.views import Applied, FetchView


async def admit(here: Controller, manifest: Manifest) -> Admitted:
    """Looks at a manifest before it becomes a revision: first what costs nothing.

    Raises:
        PenstockError: As `Registry.check` and `Intake.admit` do.
    """
    here.registry.check(manifest)
    intake = Intake(here.settings, here.registry.memory_gib)
    model = here.registry.find(manifest.name)
    admitted = _as_known(await intake.admit(manifest), model)
    if not here.settings.inspect_sources:
        return admitted
    known = () if model is None else model.manifest.adapters
    return await admit_adapters(admitted, intake.access(manifest), known)


def _as_known(admitted: Admitted, model: DeployedModel | None) -> Admitted:
    """With the task that was found out before, where the same source could not be asked again."""
    manifest = admitted.manifest
    if model is None or manifest.task is not None or model.manifest.task is None:
        return admitted
    if (manifest.source, manifest.engine) != (model.manifest.source, model.manifest.engine):
        return admitted
    same = manifest.model_copy(update={"task": model.manifest.task})
    return Admitted(same, admitted.warnings)


def planned(here: Controller, admitted: Admitted) -> Applied:
    """What deploying it would do."""
    known = here.registry.find(admitted.manifest.name)
    changed = known is None or known.manifest != admitted.manifest
    revision = 0 if known is None else known.revision
    return Applied(
        model=admitted.manifest.name,
        revision=revision + 1 if changed else revision,
        changed=changed,
        warnings=list(admitted.warnings),
        manifest=admitted.manifest,
    )


def fetch_views(here: Controller, model: DeployedModel) -> list[FetchView]:
    """How far each node is with a model's weights; of a node's hosts, the one that is furthest.

    A node that was told to fetch them and has not answered yet is among them, and what it has of
    an earlier revision's source is not: whoever waits must not take that for the end.
    """
    best: dict[str, FetchView] = {}
    told: set[str] = set()
    for host in here.loop.fleet:
        node = host.registration.node
        if any(wanted.name == model.name for wanted in host.prefetch):
            told.add(node)
        for fetch in host.fetches:
            if (fetch.model, fetch.source) != (model.name, model.manifest.source):
                continue
            view = FetchView(
                node=node,
                done_bytes=fetch.done_bytes,
                total_bytes=fetch.total_bytes,
                done=fetch.done,
                error=fetch.error,
            )
            if node not in best or _further(view, best[node]):
                best[node] = view
    for node in told - best.keys():
        best[node] = FetchView(node=node, done_bytes=0, total_bytes=0, done=False, error=None)
    return [best[node] for node in sorted(best)]


def _further(one: FetchView, other: FetchView) -> bool:
    return (one.done, one.error is None, one.done_bytes) > (
        other.done,
        other.error is None,
        other.done_bytes,
    )
