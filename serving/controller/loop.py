"""The control loop: sees, decides, plans, carries out, publishes; in memory and without waiting.

It runs each TICK_S, and at once when it is kicked. After a start it binds and publishes nothing
until all hosts have registered, or GRACE_S have passed: what runs is adopted, not restarted.
"""

import asyncio
from collections.abc import Callable

from autoscaler.loop import Autoscaler
from autoscaler.snapshot import Snapshot, Spec
from serving.controller.binder import (
    Bind,
    Life,
    SeenEngine,
    SeenHost,
    UnbindReason,
    WantedModel,
    plan,
)
from serving.controller.bindings import Bindings
from serving.controller.demand import Demand, Gateways
from serving.controller.enrolment import enrol
from serving.controller.events import EventLog
from serving.controller.moment import Moment, now
from serving.controller.observed import Engine, Fleet, Host
from serving.controller.registry import DeployedModel, Registry
from serving.controller.routes import RouteTable, make_route
from serving.controller.standing import Seen, Standing, assess
from serving.controller.telemetry import Telemetry
from serving.protocol import (
    DemandReply,
    DemandReport,
    EngineReport,
    HostRegistration,
    ModelState,
    StartPhase,
)
from serving.settings import ControllerSettings

TICK_S = 0.25
GRACE_S = 2.5
"""Hosts report each second; one that hears that it is unknown registers at once."""

ASLEEP = Standing(ModelState.ASLEEP)


class ControlLoop:
    """Brings what is to what shall be; only one task may run it."""

    def __init__(
        self,
        settings: ControllerSettings,
        registry: Registry,
        events: EventLog,
        telemetry: Telemetry,
        clock: Callable[[], Moment] = now,
    ) -> None:
        self.fleet = Fleet()
        self.gateways = Gateways()
        self.routes = RouteTable()
        self.settled = False
        self._settings = settings
        self._registry = registry
        self._events = events
        self._telemetry = telemetry
        self._clock = clock
        self._autoscaler = Autoscaler()
        self._bindings = Bindings(self.fleet, registry, events)
        self._targets: dict[str, int] = {}
        self._standings: dict[str, Standing] = {}
        self._decided_at: dict[str, float] = {}
        self._settled_after_s: float | None = None
        self._kicked = asyncio.Event()

    # --- what others tell ---------------------------------------------------------------------

    def kick(self) -> None:
        """Has the loop run as soon as the caller awaits something."""
        self._kicked.set()

    def register(self, registration: HostRegistration) -> Host:
        """A host introduces itself."""
        moment = self._clock()
        enrolled = enrol(registration, self.fleet, self._registry, moment)
        for earlier in enrolled.replaced:
            self._bindings.host_lost(earlier, moment)
        if enrolled.is_new:
            found = enrolled.adopted
            self._events.record(
                "host_joined",
                f"{registration.host_id} on {registration.node} joins pool {registration.pool}"
                + (" with a running engine" if found else ""),
                model=found.model if found else None,
                engine_id=found.engine_id if found else None,
            )
        if enrolled.adopted is not None:
            name = enrolled.adopted.model
            self._autoscaler.found_running(name, len(self.fleet.bound(name)), moment.s)
        self.kick()
        return enrolled.host

    def report(self, host_id: str, report: EngineReport | None) -> bool:
        """A host tells of its engine; False if the host is unknown and has to register."""
        host = self.fleet.find(host_id)
        if host is None:
            return False
        host.observe(report, self._clock().s)
        self.kick()
        return True

    def hear(self, report: DemandReport) -> DemandReply:
        """A gateway tells of its demand, and gets its leases."""
        self.gateways.hear(report, self._clock().s)
        if any(d.queued and not self._has_ready(d.model) for d in report.models):
            self.kick()
        return DemandReply(
            leases={
                engine.engine_id: self.gateways.lease(report.gateway_id, engine.model, engine.slots)
                for engine in self.fleet.bound()
                if engine.life is Life.READY
            }
        )

    def changed(self, model: str) -> None:
        """The model was deployed or deleted: its failures are forgotten."""
        self._bindings.forgive(model)
        self.kick()

    # --- what others ask ----------------------------------------------------------------------

    def target(self, model: str) -> int:
        """Engines that the autoscaler asks for."""
        return self._targets.get(model, 0)

    def targets(self) -> dict[str, int]:
        """Engines that the autoscaler asks for, of each model."""
        return dict(self._targets)

    def standing(self, model: str) -> Standing:
        """How the model stands since the last run."""
        return self._standings.get(model, ASLEEP)

    # --- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            self._kicked.clear()
            self.step()
            try:
                async with asyncio.timeout(TICK_S):
                    await self._kicked.wait()
            except TimeoutError:
                continue

    def step(self) -> None:
        """One round; idempotent where nothing changed."""
        moment = self._clock()
        self.gateways.drop_stale(moment.s)
        for host in self.fleet.drop_silent(moment.s, self._settings.host_timeout_s):
            self._bindings.host_lost(host, moment)
        if not self._is_settled(moment):
            return
        self._find_dead(moment)
        demand = self.gateways.take_demand()
        models = self._registry.models()
        self._decide(models, demand, moment)
        waiting = self._bind(models, demand, moment)
        self._publish(models, waiting, moment)

    def _is_settled(self, moment: Moment) -> bool:
        if self._settled_after_s is None:
            grace_s = GRACE_S if self._registry.models() else 0.0
            self._settled_after_s = moment.s + grace_s
        if not self.settled:
            all_here = len(self.fleet) >= sum(self._settings.pools.values())
            self.settled = all_here or moment.s >= self._settled_after_s
            if self.settled:
                self.routes.changes.wake()
        return self.settled

    def _find_dead(self, moment: Moment) -> None:
        for engine in self.fleet.bound():
            overdue = moment.s - engine.bound_s >= self._settings.start_timeout_s
            engine.timed_out = engine.life is Life.STARTING and overdue
            if engine.life is Life.DEAD:
                self._bindings.died(engine, moment)

    def _decide(
        self, models: list[DeployedModel], demand: dict[str, Demand] | None, moment: Moment
    ) -> None:
        names = {model.name for model in models}
        self._autoscaler.keep_only(names)
        self._targets = {name: n for name, n in self._targets.items() if name in names}
        for model in models:
            asked = None if demand is None else demand.get(model.name, Demand())
            lives = [engine.life for engine in self.fleet.bound(model.name)]
            scaling = model.manifest.scaling
            decision = self._autoscaler.decide(
                model.name,
                Snapshot(
                    at_s=moment.s,
                    ready=lives.count(Life.READY),
                    starting=lives.count(Life.STARTING),
                    queued=None if asked is None else asked.queued,
                    in_flight=None if asked is None else asked.in_flight,
                    arrivals=0 if asked is None else asked.arrivals,
                ),
                Spec(min=scaling.min, max=scaling.max, idle_timeout_s=scaling.idle_timeout_s),
            )
            self._targets[model.name] = decision.target
            if len(lives) - lives.count(Life.DEAD) >= decision.target:
                self._decided_at.pop(model.name, None)
            else:
                self._decided_at.setdefault(model.name, moment.at)

    def _bind(
        self, models: list[DeployedModel], demand: dict[str, Demand] | None, moment: Moment
    ) -> frozenset[str]:
        in_flight = self.gateways.in_flight()
        wanted = [self._wanted(model, demand) for model in models]
        planned = plan(wanted, [_seen(host, in_flight) for host in self.fleet], moment.s)
        for action in planned.actions:
            if isinstance(action, Bind):
                asked = (demand or {}).get(action.model, Demand())
                decided_at = self._decided_at.get(action.model, moment.at)
                self._bindings.bind(action, asked, decided_at, self._clock())
                continue
            self._bindings.unbind(action)
            if action.reason is UnbindReason.GIVES_WAY:
                left = len(self.fleet.bound(action.model))
                self._autoscaler.gave_way(action.model, left)
                self._targets[action.model] = min(self._targets[action.model], left)
        if planned.actions:
            self.kick()
        return planned.waiting

    def _wanted(self, model: DeployedModel, demand: dict[str, Demand] | None) -> WantedModel:
        starts = self._bindings.starts(model.name)
        asked = None if demand is None else demand.get(model.name, Demand())
        return WantedModel(
            name=model.name,
            revision=model.revision,
            pool=model.manifest.resources.pool,
            target=self._targets[model.name],
            min=model.manifest.scaling.min,
            same_engine=model.same_engine,
            asked_since_s=None if asked is None else asked.asked_since_s,
            idle=asked is not None and not asked.queued and not asked.in_flight,
            retry_at_s=starts.retry_s,
            avoid=frozenset({starts.host_id}) if starts.failures else frozenset(),
        )

    def _publish(
        self, models: list[DeployedModel], waiting: frozenset[str], moment: Moment
    ) -> None:
        routes = []
        self._standings = {}
        for model in models:
            engines = self.fleet.bound(model.name)
            pool = model.manifest.resources.pool
            standing = assess(
                Seen(
                    target=self._targets[model.name],
                    ready=sum(e.life is Life.READY for e in engines),
                    starting=sum(e.life is Life.STARTING for e in engines),
                    waits_for_host=model.name in waiting,
                    starts=self._bindings.starts(model.name),
                    pool=pool,
                    pool_hosts=sum(host.pool == pool for host in self.fleet),
                ),
                moment.s,
            )
            self._standings[model.name] = standing
            routes.append(make_route(model, standing, engines))
        self.routes.publish(routes)
        for engine in self.fleet.bound():
            if engine.life is Life.READY and not engine.announced:
                self._announce(engine)

    def _announce(self, engine: Engine) -> None:
        """The engine has just been routed for the first time."""
        engine.announced = True
        routed_at = self._clock().at
        engine.marks[StartPhase.ROUTED] = routed_at
        self._telemetry.observe_start(engine)
        took_s = routed_at - min(engine.marks.values())
        self._events.record(
            "ready",
            f"engine on {engine.host_id} is ready after {took_s:.2f}s",
            model=engine.model,
            engine_id=engine.engine_id,
        )

    def _has_ready(self, model: str) -> bool:
        return any(engine.life is Life.READY for engine in self.fleet.bound(model))


def _seen(host: Host, in_flight: dict[str, int]) -> SeenHost:
    engine = host.engine
    if engine is None:
        return SeenHost(host.host_id, host.pool, draining=host.leaving is not None)
    return SeenHost(
        host.host_id,
        host.pool,
        SeenEngine(
            engine.engine_id,
            engine.model,
            engine.revision,
            engine.life,
            in_flight.get(engine.engine_id, 0),
            engine.bound_s,
        ),
    )
