"""Carries out what the binder planned, and keeps each model's history of starts."""

import secrets

from models.profile import with_profile
from serving.controller import dormitory
from serving.controller.demand import Demand
from serving.controller.events import EventLog
from serving.controller.fleet import Fleet
from serving.controller.moment import Moment
from serving.controller.observed_engine import Engine
from serving.controller.observed_host import Host
from serving.controller.placement import Bind, Life, Unbind, UnbindReason
from serving.controller.registry import Registry
from serving.controller.starts import FAILED_AFTER, Starts
from serving.controller.traces import Traces
from serving.protocol import EnginePhase, StartPhase

WHY = {
    UnbindReason.DELETED: "its model was deleted",
    UnbindReason.SURPLUS: "it is not needed any more",
    UnbindReason.OLD_REVISION: "a newer revision takes its place",
    UnbindReason.GIVES_WAY: "it was idle, and another model waits for a host",
}


class Bindings:
    """Binds and unbinds engines; records why."""

    def __init__(self, fleet: Fleet, registry: Registry, events: EventLog, traces: Traces) -> None:
        self._traces = traces
        self._fleet = fleet
        self._registry = registry
        self._events = events
        self._starts: dict[str, Starts] = {}
        self._swaps: set[str] = set()

    def starts(self, model: str) -> Starts:
        """How the model's last starts went."""
        return self._starts.get(model, Starts())

    def forgive(self, model: str) -> None:
        """Forgets failed starts: the model was deployed anew, or deleted."""
        self._starts.pop(model, None)
        self._swaps.discard(model)

    def swaps(self, model: str) -> bool:
        """Whether an old revision's engine made room for one that is not ready yet."""
        if model in self._swaps and self._has_current(model):
            self._swaps.discard(model)
        return model in self._swaps

    def _has_current(self, name: str) -> bool:
        model = self._registry.find(name)
        return model is None or any(
            engine.life is Life.READY and model.has_engine_of(engine.revision)
            for engine in self._fleet.bound(name)
        )

    def bind(self, action: Bind, demand: Demand, decided_at: float, now: Moment) -> None:
        """Tells a host to start an engine of one of the model's revisions."""
        host, model = self._fleet.find(action.host_id), self._registry.find(action.model)
        if host is None or model is None:
            return
        asked = demand.asked_since_s is not None
        start_id = (demand.start_id if asked else None) or f"start-{secrets.token_hex(6)}"
        woken = asked and not self._fleet.bound(model.name)
        dozing = host.dozing
        wakes = dozing is not None and dozing.model == model.name and self._may_sleep(dozing)
        if wakes:
            engine = host.wake(start_id, now.s)
        else:
            engine = Engine(
                engine_id=f"eng-{secrets.token_hex(6)}",
                model=model.name,
                revision=action.revision,
                start_id=start_id,
                manifest=with_profile(model.manifest_of(action.revision) or model.manifest),
                host_id=host.host_id,
                node=host.registration.node,
                bound_s=now.s,
                started_at=now.at,
            )
        if demand.asked_since_s is not None:
            asked_at = now.at - (now.s - demand.asked_since_s)
            engine.marks[StartPhase.DEMAND_SEEN] = min(asked_at, decided_at)
        engine.marks[StartPhase.DECIDED] = decided_at
        if host.registered_at > decided_at:  # the pool had to grow, or to replace a host
            engine.marks[StartPhase.HOST_STARTED] = host.registered_at
            if (node_at := host.node_started_at) is not None and node_at > decided_at:
                engine.marks[StartPhase.NODE_STARTED] = node_at
        engine.marks[StartPhase.BOUND] = now.at
        if not wakes:
            host.assign(engine)
        self._events.record(
            "woken" if woken else "bound",
            f"engine of revision {action.revision} {'wakes' if wakes else 'starts'}"
            f" on {host.host_id}" + (f" for {demand.queued} waiting" if woken else ""),
            model=model.name,
            engine_id=engine.engine_id,
        )

    def unbind(self, action: Unbind) -> None:
        """Tells a host to drain and stop its engine; says so, unless the engine died anyway."""
        host = self._fleet.find(action.host_id)
        if host is None or host.engine is None:
            return
        if action.reason is UnbindReason.SURPLUS and self._may_sleep(host.engine):
            host.doze()
            self._events.record(
                "dozed",
                f"engine on {action.host_id} sleeps there: {WHY[action.reason]}",
                model=action.model,
                engine_id=action.engine_id,
            )
            return
        self._fleet.bury(host.engine)
        host.assign(None)
        if action.reason is UnbindReason.DEAD:
            return
        if action.reason is UnbindReason.OLD_REVISION and not self._has_current(action.model):
            self._swaps.add(action.model)
        asleep = action.reason in (UnbindReason.SURPLUS, UnbindReason.GIVES_WAY)
        asleep = asleep and not self._fleet.bound(action.model)
        self._events.record(
            "slept" if asleep else "unbound",
            f"engine on {action.host_id} stops: {WHY[action.reason]}",
            model=action.model,
            engine_id=action.engine_id,
        )

    def clear_dormitory(self) -> None:
        """Ends the sleepers whose model is deleted, or was changed."""
        for host in self._fleet:
            if host.dozing is not None and not self._may_sleep(host.dozing):
                self._fleet.bury(host.dozing)
                host.assign(None)

    def _may_sleep(self, engine: Engine) -> bool:
        model = self._registry.find(engine.model)
        if model is None or engine.phase not in (EnginePhase.READY, EnginePhase.SLEEPING):
            return False
        return dormitory.may_stay(
            model.manifest, engine.revision, model.revision, model.same_engine
        )

    def died(self, engine: Engine, now: Moment) -> None:
        """A bound engine failed on a host that lives, or goes because its host does."""
        if engine.phase is EnginePhase.DRAINING:
            self._events.record(
                "engine_lost",
                f"{engine.host_id} is shut down and drains its engine",
                model=engine.model,
                engine_id=engine.engine_id,
            )
            return
        failed_start = engine.ready_s is None
        error = engine.error or "it stopped without being asked to"
        self._events.record(
            "engine_failed",
            f"engine on {engine.host_id} " + ("did not start: " if failed_start else "died: ")
            + error + (f" ({engine.hint})" if engine.hint else ""),
            model=engine.model,
            engine_id=engine.engine_id,
        )  # fmt: skip
        if failed_start:
            self._traces.failed(engine, error, now.at)
        self._count(engine, error, now)

    def host_lost(self, host: Host, now: Moment) -> None:
        """A host was silent for too long, and its engine with it."""
        silent_s = now.s - host.seen_s
        self._events.record(
            "host_lost", f"{host.host_id} on {host.registration.node} is silent for {silent_s:.1f}s"
        )
        engine = host.engine
        if engine is None:
            return
        self._fleet.bury(engine)
        if engine.is_share:  # the whole engine ends, and is told of, in the next round
            return
        self._events.record(
            "engine_lost",
            f"engine on {host.host_id} went with its host",
            model=engine.model,
            engine_id=engine.engine_id,
        )
        if engine.ready_s is None:
            error = "its host died while it started"
            self._traces.failed(engine, error, now.at)
            self._count(engine, error, now)

    def _count(self, engine: Engine, error: str, now: Moment) -> None:
        model = self._registry.find(engine.model)
        if model is None or not model.has_engine_of(engine.revision):
            return  # what an older revision's engine does says nothing of the current one's
        starts = self.starts(engine.model).after_failure(
            now.s, ready_s=engine.ready_s, error=error, hint=engine.hint, host_id=engine.host_id
        )
        self._starts[engine.model] = starts
        if starts.failures == FAILED_AFTER:
            self._events.record(
                "model_failed",
                f"{starts.failures} starts failed in a row: {error}"
                + (f" ({engine.hint})" if engine.hint else ""),
                model=engine.model,
            )
