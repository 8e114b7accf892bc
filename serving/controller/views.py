"""Shows the controller's state as the resources of `serving.views`."""

from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from serving.controller.context import Controller
from serving.controller.decisions import TargetChange
from serving.controller.demand import Demand
from serving.controller.deploys import fetch_views
from serving.controller.observed_engine import Engine
from serving.controller.observed_host import Host
from serving.controller.placement import Life
from serving.controller.registry import DeployedModel
from serving.controller.store import StoredEvent
from serving.controller.traces import PHASE_ORDER, Trace
from serving.views import (
    DecisionView,
    EngineView,
    EventView,
    HostView,
    MarkView,
    ModelView,
    PlatformView,
    PoolView,
    RevisionView,
    StartView,
)


def our_version() -> str:
    """The installed version of Penstock."""
    try:
        return version("penstock")
    except PackageNotFoundError:
        return "unknown"


def platform_view(here: Controller) -> PlatformView:
    """The platform at a glance."""
    return PlatformView(
        version=our_version(),
        pools=[_pool_view(here, name, n or 0) for name, n in sorted(here.loop.pools.sizes.items())],
        gateways=len(here.loop.gateways),
        models=[model_view(here, model) for model in here.registry.models()],
    )


def model_view(here: Controller, model: DeployedModel) -> ModelView:
    """One model."""
    standing = here.loop.standing(model.name)
    demand = (here.loop.gateways.demand() or {}).get(model.name, Demand())
    ready = [e for e in here.loop.fleet.bound(model.name) if e.life is Life.READY]
    decided = here.loop.targets.last(model.name)
    return ModelView(
        name=model.name,
        state=standing.state,
        reason=standing.reason,
        revision=model.revision,
        source=model.manifest.source,
        pool=model.manifest.resources.pool,
        engines_ready=len(ready),
        engines_wanted=here.loop.targets.of(model.name),
        scaling_reason="" if decided is None else decided.reason,
        queued=demand.queued,
        in_flight=demand.in_flight,
        created_at=_time(model.stored.created_at),
        manifest=model.manifest,
        fetches=fetch_views(here, model),
    )


def revision_views(model: DeployedModel) -> list[RevisionView]:
    """All revisions of a model, oldest first."""
    return [
        RevisionView(
            model=stored.model,
            revision=stored.revision,
            created_at=_time(stored.created_at),
            manifest=stored.manifest,
            author=stored.author,
        )
        for stored in model.stored.revisions
    ]


def start_view(trace: Trace) -> StartView:
    """One start; its marks count from the first one."""
    marks = trace.ordered()
    began_at = marks[0][1] if marks else trace.failed_at or 0.0
    return StartView(
        start_id=trace.start_id,
        model=trace.model,
        revision=trace.revision,
        engine_id=trace.engine_id,
        host_id=trace.host_id,
        node=trace.node,
        began_at=_time(began_at),
        marks=[MarkView(phase=phase, at_s=at - began_at) for phase, at in marks],
        waited_s=trace.waited_s,
        failed_at_s=None if trace.failed_at is None else trace.failed_at - began_at,
        error=trace.error,
        hint=trace.hint,
    )


def decision_view(change: TargetChange) -> DecisionView:
    """One change of a model's target."""
    decision, seen = change.decision, change.seen
    return DecisionView(
        at=_time(change.at),
        before=change.before,
        target=decision.target,
        reason=decision.reason,
        queued=seen.queued,
        in_flight=seen.in_flight,
        ready=seen.ready,
        starting=seen.starting,
        idle_s=decision.idle_s,
        needed=decision.needed,
        by_arrivals=decision.by_arrivals,
        by_backlog=decision.by_backlog,
        by_slots=decision.by_slots,
        window_s=decision.window_s,
        idle_limit_s=decision.idle_limit_s,
        queued_tokens=seen.queued_tokens,
        oldest_wait_s=seen.oldest_wait_s,
        draining=seen.draining,
        available=seen.available,
        cold_start_s=seen.cold_start_s,
        prefill_tps=None if seen.capacity is None else seen.capacity.prefill_tps,
    )


def engine_views(here: Controller) -> list[EngineView]:
    """All engines that live, those that drain too."""
    in_flight = here.loop.gateways.in_flight()
    return [_engine_view(e, in_flight.get(e.engine_id, 0)) for e in here.loop.fleet.engines()]


def host_views(here: Controller, now_s: float) -> list[HostView]:
    """All hosts that live, by id."""
    hosts = sorted(here.loop.fleet, key=lambda host: host.host_id)
    return [_host_view(host, now_s) for host in hosts]


def event_view(event: StoredEvent) -> EventView:
    """One event."""
    return EventView(
        at=_time(event.at),
        kind=event.kind,
        model=event.model,
        engine_id=event.engine_id,
        message=event.message,
    )


def _engine_view(engine: Engine, in_flight: int) -> EngineView:
    marks = [(phase, engine.marks[phase]) for phase in PHASE_ORDER if phase in engine.marks]
    return EngineView(
        engine_id=engine.engine_id,
        model=engine.model,
        revision=engine.revision,
        host_id=engine.host_id,
        node=engine.node,
        phase=engine.phase,
        pid=None if engine.report is None else engine.report.pid,
        slots=engine.slots,
        in_flight=in_flight,
        started_at=_time(engine.started_at),
        start_id=engine.start_id,
        marks=[MarkView(phase=phase, at_s=at - marks[0][1]) for phase, at in marks],
        error=engine.error,
        hint=engine.hint,
    )


def _host_view(host: Host, now_s: float) -> HostView:
    engine = host.holder
    return HostView(
        host_id=host.host_id,
        pool=host.pool,
        node=host.registration.node,
        accelerators=list(host.registration.accelerators),
        pid=host.registration.pid,
        engine_id=None if engine is None else engine.engine_id,
        model=None if engine is None else engine.model,
        registered_at=_time(host.registered_at),
        seen_s_ago=max(0.0, now_s - host.seen_s),
    )


def _pool_view(here: Controller, name: str, hosts_wanted: int) -> PoolView:
    hosts = Counter(host.is_free for host in here.loop.fleet if host.pool == name)
    return PoolView(
        name=name, hosts_wanted=hosts_wanted, hosts=hosts.total(), hosts_free=hosts[True]
    )


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
