"""The control loop: sees, decides, plans, carries out, publishes; in memory and without waiting.

It runs each TICK_S, and at once when it is kicked. After a start it binds and publishes nothing
until all hosts have registered, or GRACE_S have passed: what runs is adopted, not restarted.

It wires all that sees, decides and carries out: what one of these parts works out stands in a
module of its own, and here only who is asked when.
"""

import asyncio
from collections.abc import Callable
from copy import copy

from serving.background import set_within
from serving.controller import adapters
from serving.controller.announcements import Announcements
from serving.controller.bindings import Bindings
from serving.controller.demand import Gateways
from serving.controller.enrolment import enrol
from serving.controller.events import EventLog
from serving.controller.fleet import Fleet
from serving.controller.gang_plan import plan_with_gangs
from serving.controller.gangs import Gangs
from serving.controller.hearing import Hearing
from serving.controller.moment import Moment, now
from serving.controller.observed_host import Host
from serving.controller.placement import Bind, Life, UnbindReason
from serving.controller.pool_sizes import PoolSizes
from serving.controller.prefetch import spread
from serving.controller.recorded import Recorded
from serving.controller.registry import DeployedModel, Registry
from serving.controller.rollouts import Rollouts, real, unlabelled
from serving.controller.routes import RouteTable, make_route
from serving.controller.standing import Standing
from serving.controller.standings import Standings
from serving.controller.starts import FAILED_AFTER
from serving.controller.targets import NO_DEMAND, Demands, Targets
from serving.controller.telemetry import Telemetry
from serving.controller.traces import Traces
from serving.protocol import (
    DemandReply,
    DemandReport,
    EnginePhase,
    EngineReport,
    HostRegistration,
)
from serving.settings import ControllerSettings, named_secrets

TICK_S = 0.25
GRACE_S = 2.5
"""Hosts report each second; one that hears that it is unknown registers at once."""

SUCCESSOR_GRACE_S = 6.0
"""After another controller led: hosts may still wait for an answer of one that stands still."""

STALLED_S = 1.0
"""After a pause of our own, as on a machine that was suspended, reports wait to be read: nobody is
taken for silent before they are."""


def alone() -> bool:
    """A controller that is alone leads."""
    return True


class ControlLoop:
    """Brings what is to what shall be; only one task may run it."""

    def __init__(
        self,
        settings: ControllerSettings,
        registry: Registry,
        events: EventLog,
        telemetry: Telemetry,
        clock: Callable[[], Moment] = now,
        may_act: Callable[[], bool] = alone,
        grace_s: float = GRACE_S,
    ) -> None:
        """`may_act` is asked before each step: whether this controller leads; `grace_s` is how long
        it waits for hosts that it knows nothing of."""
        self.fleet = Fleet()
        self.gateways = Gateways()
        self.routes = RouteTable()
        self.traces = Traces()
        self.targets = Targets(self.fleet, self.traces)
        self.recorded = Recorded()
        self.pools = PoolSizes(settings, events)
        self.rollouts = Rollouts(events)
        self.settled = False
        self._settings = settings
        self._secrets = named_secrets(settings.secrets_dir)
        self._registry = registry
        self._events = events
        self._clock = clock
        self._may_act = may_act
        self._grace_s = grace_s
        self._bindings = Bindings(self.fleet, registry, events, self.traces)
        self._gangs = Gangs(self.fleet)
        self._standings = Standings(self.fleet, self.targets, self._bindings)
        self._announcements = Announcements(events, telemetry, self.traces)
        self._hearing = Hearing(
            self.fleet, self.gateways, self.rollouts, self.traces, telemetry, events, self.kick
        )
        self._settled_after_s: float | None = None
        self._stepped_s: float | None = None
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
        self._announcements.joined(enrolled)
        if enrolled.adopted is not None:
            self.targets.found_running(enrolled.adopted.model, moment)
        spread(self.fleet, self._registry)
        self.kick()
        return enrolled.host

    def report(self, host_id: str, report: EngineReport | None) -> bool:
        """A host tells of its engine; False if the host is unknown and has to register."""
        host = self.fleet.find(host_id)
        if host is None:
            return False
        before = None if host.engine is None else copy(host.engine)
        if report is not None and report.killed:
            self.gateways.note_killed(report.engine_id, self._clock().s)
        if host.observe(report, self._clock().s):
            self.kick()
            self._announcements.adapted(before, host.engine)
        if host.engine is not None and (model := self._registry.find(host.engine.model)):
            self.targets.capacities.observe(model, host.engine)
        return True

    def hear(self, report: DemandReport) -> DemandReply:
        """A gateway tells of its demand, and gets its leases."""
        return self._hearing.hear(report, self._clock().s)

    def changed(self, model: str) -> None:
        """The model was deployed or deleted: its failures are forgotten."""
        self._bindings.forgive(model)
        spread(self.fleet, self._registry)
        self.kick()

    # --- what others ask ----------------------------------------------------------------------

    def standing(self, model: str) -> Standing:
        """How the model stands since the last run."""
        return self._standings.of(model)

    def has_failed(self, model: str) -> bool:
        """Whether its current revision does not start."""
        return self._bindings.starts(model).failures >= FAILED_AFTER

    # --- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            self._kicked.clear()
            if self._may_act():
                self.step()
            await set_within(self._kicked, TICK_S)

    def step(self) -> None:
        """One round; idempotent where nothing changed."""
        moment = self._clock()
        stalled = self._stepped_s is not None and moment.s - self._stepped_s > STALLED_S
        self._stepped_s = moment.s
        if not stalled:
            self._drop_silent(moment)
        if not self._is_settled(moment):
            return
        self._find_dead(moment)
        demands = self.gateways.take_demand()
        models = self._registry.models()
        for name, demand in (demands or {}).items():
            self.recorded.note(name, moment.at, demand.counts)
        everyone, models = models, [model for model in models if not model.manifest.endpoints]
        self.targets.decide(models, demands, moment)
        self.targets.growable = self.pools.decide(
            models, self.targets.lasts(), self.targets.most(), self.fleet, moment
        )
        self._roll_out(models, moment)
        waiting = self._bind(models, demands, moment)
        adapters.follow(self.fleet, self._registry)
        self._announcements.short(waiting, self._standings, moment.s)
        self._publish(everyone, waiting, moment)

    def _drop_silent(self, moment: Moment) -> None:
        self.gateways.drop_stale(moment.s)
        for host in self.fleet.drop_silent(moment.s, self._settings.host_timeout_s):
            self._bindings.host_lost(host, moment)

    def _is_settled(self, moment: Moment) -> bool:
        if self._settled_after_s is None:
            grace_s = self._grace_s if self._registry.models() else 0.0
            self._settled_after_s = moment.s + grace_s
        if not self.settled:
            all_here = len(self.fleet) >= self.pools.least
            self.settled = all_here or moment.s >= self._settled_after_s
            if self.settled:
                self.routes.changes.wake()
        return self.settled

    def _find_dead(self, moment: Moment) -> None:
        self._bindings.clear_dormitory()
        self._gangs.keep()
        for engine in self.fleet.bound():
            since_s = max(engine.bound_s, self.fleet.fetched_s(engine, moment.s))
            overdue = moment.s - since_s >= self._settings.start_timeout_s
            engine.timed_out = engine.life is Life.STARTING and overdue
            if engine.life is Life.DEAD:
                self._bindings.died(engine, moment)
                if engine.ready_s is not None and engine.phase is not EnginePhase.DRAINING:
                    self.rollouts.died(engine.model, engine.revision)

    def _bind(
        self, models: list[DeployedModel], demands: Demands, moment: Moment
    ) -> frozenset[str]:
        """Plans and carries out; returns the models that wait for a host."""
        in_flight = self.gateways.in_flight()
        wanted, sizes = [], {}
        for model in models:
            whole = self.targets.wanted(model, demands, self._bindings.starts(model.name))
            for track in self.rollouts.tracks(model, whole):
                wanted.append(track)
                if (size := model.hosts_of(track.revision)) > 1:
                    sizes[track.name] = size
        hosts = [self.rollouts.seen(host) for host in self._gangs.seen(in_flight)]
        gang_plan = plan_with_gangs(wanted, hosts, sizes, moment.s)
        planned = gang_plan.plan
        for action in map(unlabelled, planned.actions):
            if isinstance(action, Bind):
                asked = (demands or {}).get(action.model, NO_DEMAND)
                decided_at = self.targets.lacking_since(action.model, moment)
                self._bindings.bind(action, asked, decided_at, self._clock())
                self._gangs.complete(action.host_id, gang_plan.further.get(action.host_id, ()))
                continue
            self._bindings.unbind(action)
            if action.reason is UnbindReason.GIVES_WAY:
                self.targets.gave_way(action.model)
        if planned.actions:
            self.kick()
        return frozenset(map(real, planned.waiting))

    def _roll_out(self, models: list[DeployedModel], moment: Moment) -> None:
        """Begins, judges and ends canaries."""
        running: dict[str, set[int]] = {}
        ready: dict[str, set[int]] = {}
        for engine in self.fleet.bound():
            running.setdefault(engine.model, set()).add(engine.revision)
            if engine.life is Life.READY:
                ready.setdefault(engine.model, set()).add(engine.revision)
        self.rollouts.follow(models, running, moment.at)
        self.rollouts.step(self._bindings.starts, ready, moment.at)

    def _publish(
        self, models: list[DeployedModel], waiting: frozenset[str], moment: Moment
    ) -> None:
        bound = self.fleet.bound_by_model()
        self._standings.look(models, bound, waiting, moment.s)
        routes = [
            make_route(
                model,
                self.standing(model.name),
                bound.get(model.name, []),
                self.rollouts.route(model),
                self._secrets,
            )
            for model in models
        ]
        self._hearing.elsewhere = [
            (r.name, one) for r in routes for one in r.endpoints if one.external
        ]
        self.routes.publish(routes)
        self.traces.keep_only(model.name for model in models)
        for engine in self.fleet.bound():
            if engine.life is Life.READY and not engine.announced:
                self._announcements.ready(engine, self._clock().at)
