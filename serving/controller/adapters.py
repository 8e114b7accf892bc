"""LoRA adapters as the controller sees them: which engines shall have which, and which have. Pure.

A change of a model's adapters takes no new engine: the hosts of those that run are told.
"""

from collections.abc import Iterable, Iterator

from models.manifest import AdapterSpec
from serving.controller.fleet import Fleet
from serving.controller.observed_engine import Engine
from serving.controller.placement import Life
from serving.controller.registry import DeployedModel, Registry
from serving.protocol import AdapterReport, AdapterRoute


def wanted_by(model: DeployedModel, revision: int) -> tuple[AdapterSpec, ...]:
    """What engines of a revision shall have: the current ones, unless it is another engine's."""
    if model.has_engine_of(revision):
        return model.manifest.adapters
    manifest = model.manifest_of(revision)
    return () if manifest is None else manifest.adapters


def follow(fleet: Fleet, registry: Registry) -> None:
    """Tells the hosts whose engines shall have other adapters than they were told."""
    for host in fleet:
        engine = host.engine
        if engine is None or (model := registry.find(engine.model)) is None:
            continue
        wanted = wanted_by(model, engine.revision)
        if engine.wanted_adapters != wanted:
            engine.adapters = wanted
            host.changes.bump()


def loaded_in(engine: Engine) -> tuple[str, ...]:
    """Adapters that requests may be sent to this engine for."""
    names = {spec.name for spec in engine.wanted_adapters}
    return tuple(told.name for told in _reports(engine) if told.source and told.name in names)


def routes_of(model: DeployedModel, engines: Iterable[Engine]) -> tuple[AdapterRoute, ...]:
    """The adapters that tenants may call: the current ones, and those of engines on their way out
    while these serve."""
    ready = [engine for engine in engines if engine.life is Life.READY]
    served = {name for engine in ready for name in loaded_in(engine)}
    broken = {told.name for engine in ready for told in _reports(engine) if told.error} - served
    names = {spec.name for spec in model.manifest.adapters} | served
    return tuple(AdapterRoute(name=name, failed=name in broken) for name in sorted(names))


def news(before: Engine | None, after: Engine) -> Iterator[tuple[str, str]]:
    """Kinds and texts of the events that a report is: adapters that were loaded, or could not be.

    Args:
        before: What its host told before; None: nothing.
        after: What it tells now.
    """
    known = {} if before is None else {told.name: told for told in _reports(before)}
    for told in _reports(after):
        old = known.get(told.name, AdapterReport(name=told.name))
        if told.source and told.source != old.source:
            yield "adapter_loaded", f"adapter {told.name} is loaded on {after.host_id}"
        if told.error and told.error != old.error:
            hint = f" ({told.hint})" if told.hint else ""
            yield "adapter_failed", f"adapter {told.name} on {after.host_id}: {told.error}{hint}"


def _reports(engine: Engine) -> tuple[AdapterReport, ...]:
    return () if engine.report is None else engine.report.adapters
