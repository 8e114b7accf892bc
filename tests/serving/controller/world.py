"""A small world around the control loop: a clock that is turned by hand, hosts and a gateway."""

from dataclasses import dataclass, field
from typing import Any

from models.manifest import Manifest, parse_manifest
from serving.controller.events import EventLog
from serving.controller.loop import ControlLoop
from serving.controller.moment import Moment
from serving.controller.registry import Registry
from serving.controller.telemetry import Telemetry
from serving.protocol import (
    DemandReport,
    EngineAssignment,
    EnginePhase,
    EngineReport,
    HostRegistration,
    ModelDemand,
    ModelRoute,
    PhaseMark,
    StartPhase,
)
from serving.settings import ControllerSettings


def manifest(name: str = "guide", **fields: Any) -> Manifest:
    return parse_manifest({"name": name, "source": "builtin://guide", **fields})


def settings(**fields: Any) -> ControllerSettings:
    values: dict[str, Any] = {"internal_token": "internal-token", "controller_port": 0, **fields}
    return ControllerSettings(**values)


def registration(
    host_id: str, *, pool: str = "cpu", pid: int = 1, engine: EngineReport | None = None,
    node_age_s: float | None = None,
) -> HostRegistration:  # fmt: skip
    return HostRegistration(
        host_id=host_id, pool=pool, node="node-1", address="127.0.0.1", pid=pid, engine=engine,
        node_age_s=node_age_s,
    )  # fmt: skip


def engine_report(assigned: EngineAssignment, phase: EnginePhase, **fields: Any) -> EngineReport:
    values: dict[str, Any] = {
        "engine_id": assigned.engine_id,
        "model": assigned.manifest.name,
        "revision": assigned.revision,
        "phase": phase,
        **fields,
    }
    if phase is EnginePhase.READY:
        ready = {"url": "http://127.0.0.1:9", "token": "t", "slots": 64, "max_model_len": 512}
        values = {**ready, **values}
    return EngineReport(**values)


@dataclass
class FakeHost:
    """A host that does what it is told, step by step."""

    host_id: str
    world: "World"

    @property
    def assigned(self) -> EngineAssignment | None:
        host = self.world.loop.fleet.find(self.host_id)
        assert host is not None
        return host.assignment.engine

    def report(self, phase: EnginePhase, **fields: Any) -> bool:
        assert self.assigned is not None
        report = engine_report(self.assigned, phase, **fields)
        return self.world.loop.report(self.host_id, report)

    def idle(self) -> bool:
        return self.world.loop.report(self.host_id, None)

    def start(self) -> None:
        """Its engine gets ready, with all marks."""
        at = self.world.moment.at
        marks = [
            PhaseMark(phase=phase, at=at + 0.1 * i)
            for i, phase in enumerate(
                (
                    StartPhase.FORKED,
                    StartPhase.WEIGHTS,
                    StartPhase.ENGINE_READY,
                    StartPhase.PROBED,
                )
            )
        ]
        self.report(EnginePhase.STARTING)
        self.world.turn(0.4)
        self.report(EnginePhase.READY, marks=tuple(marks))


@dataclass
class World:
    """The loop, and who talks to it."""

    registry: Registry
    events: EventLog
    loop: ControlLoop = field(init=False)
    telemetry: Telemetry = field(init=False)
    settings: ControllerSettings = field(default_factory=settings)
    moment: Moment = field(default_factory=lambda: Moment(1000.0, 1_800_000_000.0))
    told: list[str] = field(default_factory=list)
    alive: list[FakeHost] = field(default_factory=list)
    asks: dict[str, ModelDemand] = field(default_factory=dict)
    has_gateway: bool = True

    def __post_init__(self) -> None:
        self.restart()
        self.loop.step()  # nothing is deployed yet: it settles at once
        record = self.events.record

        def listen(kind: str, message: str, **more: Any) -> None:
            self.told.append(kind)
            record(kind, message, **more)

        self.events.record = listen  # type: ignore[method-assign]  # our ear at the door

    def restart(self) -> None:
        """The controller's memory is gone."""
        self.telemetry = Telemetry()
        self.loop = ControlLoop(
            self.settings, self.registry, self.events, self.telemetry, clock=lambda: self.moment
        )

    def host(self, host_id: str, **fields: Any) -> FakeHost:
        self.loop.register(registration(host_id, **fields))
        host = FakeHost(host_id, self)
        self.alive.append(host)
        return host

    async def deploy(self, name: str = "guide", **fields: Any) -> int:
        result = await self.registry.apply(manifest(name, **fields), self.moment.at)
        self.loop.changed(name)
        return result.revision

    def ask(
        self, model: str = "guide", queued: int = 0, running: dict[str, int] | None = None
    ) -> None:
        """The gateway has this demand from now on, reported at once."""
        since = self.asks.get(model)
        waits = 0.0 if since is None or not since.queued else since.oldest_wait_s
        self.asks[model] = ModelDemand(
            model=model, queued=queued, oldest_wait_s=waits if queued else 0.0,
            in_flight=running or {}, start_id=f"req-{model}" if queued else None,
        )  # fmt: skip
        self._tell()

    def _tell(self) -> None:
        if self.has_gateway:
            self.loop.hear(DemandReport(gateway_id="gw", models=tuple(self.asks.values())))

    def turn(self, seconds: float) -> None:
        """Turns the clock without anybody looking at it."""
        self.moment = Moment(self.moment.s + seconds, self.moment.at + seconds)
        self.asks = {
            name: ask.model_copy(update={"oldest_wait_s": ask.oldest_wait_s + seconds})
            for name, ask in self.asks.items()
        }

    def run(self, seconds: float = 0.0) -> None:
        """Lets the loop run, with reports from everybody alive, until it has nothing to do."""
        ends_s = self.moment.s + seconds
        while True:
            for host in self.alive:
                known = self.loop.fleet.find(host.host_id)
                if known is not None:
                    known.seen_s = self.moment.s
            self._tell()
            for _ in range(4):
                self.loop.step()
            if self.moment.s >= ends_s:
                return
            self.turn(min(0.25, ends_s - self.moment.s))

    def route(self, model: str = "guide") -> ModelRoute:
        (route,) = [r for r in self.loop.routes.since(0).models if r.name == model]
        return route

    def kill(self, host: FakeHost) -> None:
        self.alive.remove(host)


async def awake(world: World, **fields: Any) -> None:
    """Two hosts, the first of which serves `guide`."""
    world.host("h1"), world.host("h2")
    await world.deploy(**fields)
    world.run()
    world.ask(queued=1)
    world.run()
    world.alive[0].start()
    world.run()
