"""A host introduces itself: new, known already, or with an engine from before our start."""

from dataclasses import dataclass, field

from serving.controller.fleet import Fleet
from serving.controller.moment import Moment
from serving.controller.observed_engine import Engine
from serving.controller.observed_host import Host
from serving.controller.registry import Registry
from serving.protocol import EnginePhase, HostRegistration

ALIVE = (EnginePhase.STARTING, EnginePhase.READY)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a registration came to."""

    host: Host
    is_new: bool = False
    adopted: Engine | None = None
    replaced: list[Host] = field(default_factory=list)
    """The same host's earlier life, which ended unnoticed."""


def enrol(
    registration: HostRegistration, fleet: Fleet, registry: Registry, now: Moment
) -> Enrolled:
    """Adds the host to the fleet, or renews it.

    An engine that runs already is adopted if its model is deployed and its revision known:
    whether it is wanted is the next plan's business. Any other one is told to stop, by an
    assignment without an engine.
    """
    known = fleet.find(registration.host_id)
    if known is not None and known.registration.pid == registration.pid:
        known.registration = registration
        known.observe(registration.engine, now.s)
        return Enrolled(known)
    age_s = registration.node_age_s
    node_started_at = None if age_s is None else now.at - age_s
    host = Host(registration, now.at, now.s, node_started_at=node_started_at)
    fleet.add(host)
    replaced = [] if known is None else [known]
    report = registration.engine
    if report is None or report.phase not in (*ALIVE, EnginePhase.SLEEPING, EnginePhase.DRAINING):
        return Enrolled(host, is_new=True, replaced=replaced)
    model = registry.find(report.model)
    manifest = None if model is None else model.manifest_of(report.revision)
    running = Engine(
        engine_id=report.engine_id,
        model=report.model,
        revision=report.revision,
        start_id=report.start_id or report.engine_id,
        manifest=manifest,
        host_id=host.host_id,
        node=registration.node,
        bound_s=now.s,
        started_at=min((mark.at for mark in report.marks), default=now.at),
        gang=report.gang,
    )
    running.observe(report, now.s)
    if report.phase is EnginePhase.SLEEPING and manifest is not None:
        host.dozing = running
        return Enrolled(host, is_new=True, replaced=replaced)
    if manifest is None or report.phase is EnginePhase.DRAINING:
        host.leaving = running
        return Enrolled(host, is_new=True, replaced=replaced)
    running.announced = running.phase is EnginePhase.READY
    host.engine = running
    return Enrolled(host, is_new=True, adopted=running, replaced=replaced)
