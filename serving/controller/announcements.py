"""What the control loop tells of hosts and engines as it sees them: a host that joins, an engine
that is ready or has other adapters, a model that waits for a host."""

from serving.controller import adapters
from serving.controller.enrolment import Enrolled
from serving.controller.events import EventLog
from serving.controller.observed_engine import Engine
from serving.controller.standings import Standings
from serving.controller.telemetry import Telemetry
from serving.controller.traces import Traces
from serving.protocol import StartPhase

SHORTAGE_S = 2.0
"""A wait for a host that is shorter is part of a swap, and no news."""


class Announcements:
    """Tells each thing once."""

    def __init__(self, events: EventLog, telemetry: Telemetry, traces: Traces) -> None:
        self._events = events
        self._telemetry = telemetry
        self._traces = traces
        self._waiting_since: dict[str, float] = {}

    def joined(self, enrolled: Enrolled) -> None:
        """A host introduced itself; no news where it was known."""
        if not enrolled.is_new:
            return
        registration, found = enrolled.host.registration, enrolled.adopted
        self._events.record(
            "host_joined",
            f"{registration.host_id} on {registration.node} joins pool {registration.pool}"
            + (" with a running engine" if found else ""),
            model=found.model if found else None,
            engine_id=found.engine_id if found else None,
        )

    def adapted(self, before: Engine | None, engine: Engine | None) -> None:
        """An engine's host reported; `before` is how the engine stood until then."""
        if engine is None:
            return
        for kind, message in adapters.news(before, engine):
            self._events.record(kind, message, model=engine.model, engine_id=engine.engine_id)

    def short(self, waiting: frozenset[str], standings: Standings, now_s: float) -> None:
        """Tells once of each model that waits for a host for longer than one takes to drain."""
        for name in self._waiting_since.keys() - waiting:
            del self._waiting_since[name]
        for name in waiting:
            since_s = self._waiting_since.setdefault(name, now_s)
            if now_s - since_s >= SHORTAGE_S:
                self._waiting_since[name] = float("inf")
                reason = standings.of(name).reason
                self._events.record("no_host", reason or "waits for a host", model=name)

    def ready(self, engine: Engine, routed_at: float) -> None:
        """The engine has just been routed for the first time; `routed_at` in Unix seconds."""
        engine.announced = True
        engine.marks[StartPhase.ROUTED] = routed_at
        self._telemetry.observe_start(engine)
        self._traces.routed(engine)
        took_s = routed_at - min(engine.marks.values())
        self._events.record(
            "ready",
            f"engine on {engine.host_id} is ready after {took_s:.2f}s",
            model=engine.model,
            engine_id=engine.engine_id,
        )
