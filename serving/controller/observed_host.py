"""What is: a host that lives, with the engine on it (`observed_engine`), as it reports them.

In memory; times as there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.manifest import Manifest
from serving.controller import dormitory
from serving.controller.changes import Changes
from serving.controller.observed_engine import Engine
from serving.controller.placement import SeenEngine, SeenHost
from serving.protocol import (
    AdapterReport,
    Assignment,
    EngineAssignment,
    EnginePhase,
    EngineReport,
    FetchReport,
    GpuReport,
    HostRegistration,
)

GONE = (EnginePhase.STOPPED, EnginePhase.FAILED)
GONE_AFTER_S = 0.75
"""A host whose long poll broke off without any sign of life since: its process is gone. One that
lives polls or reports again at once."""
DROPPED_POLL_TIMEOUT_S = 1.75
"""A host that reports, but polls no more, as while it drains to its end: reports come each
second."""


@dataclass(slots=True)
class Host:
    """A live host."""

    registration: HostRegistration
    registered_at: float
    seen_s: float
    node_started_at: float | None = None
    """When its machine became a node of Ray, by our clock; None: nobody knows."""
    changes: Changes = field(default_factory=Changes)
    """Version of its assignment."""
    engine: Engine | None = None
    """What it shall run."""
    leaving: Engine | None = None
    """What it ran before, and still drains."""
    dozing: Engine | None = None
    """What sleeps on it, with nothing else to run: it gives way to whatever is bound."""
    polls: int = 0
    poll_dropped_s: float | None = None
    """When its last long poll broke off; None if another one came since."""
    prefetch: tuple[Manifest, ...] = ()
    """Models whose weights it shall fetch beforehand."""
    prefetch_id: str = ""
    """Names that list."""
    fetches: tuple[FetchReport, ...] = ()
    """How far it is with them, and with those of an engine that starts."""
    gpus: tuple[GpuReport, ...] = ()
    """How its accelerators stand, where a driver tells."""
    retires: bool = False
    """It stops its engine by itself: it is about to end."""

    @property
    def host_id(self) -> str:
        """The id that the host gave itself."""
        return self.registration.host_id

    @property
    def pool(self) -> str:
        """Name of its pool."""
        return self.registration.pool

    @property
    def assignment(self) -> Assignment:
        """What its long poll answers."""
        engine = self.engine or self.dozing
        drain = self.leaving is None or not (self.leaving.hung or self.leaving.broken)
        if engine is None or engine.manifest is None:
            return Assignment(version=self.changes.version, drain=drain)
        return Assignment(
            version=self.changes.version,
            drain=drain,
            engine=EngineAssignment(
                engine_id=engine.engine_id,
                revision=engine.revision,
                manifest=engine.manifest,
                start_id=engine.start_id,
                sleep_level=0 if self.engine is not None else dormitory.level_of(engine.manifest),
                adapters=engine.wanted_adapters,
                gang=engine.gang,
            ),
        )

    def assignment_for(self, prefetch_id: str | None) -> Assignment:
        """The assignment for a host that has a list of what to fetch beforehand, or none."""
        told = None if prefetch_id == self.prefetch_id else self.prefetch
        update = {"prefetch": told, "prefetch_id": self.prefetch_id}
        return self.assignment.model_copy(update=update)

    @property
    def is_free(self) -> bool:
        """Whether an engine may be bound to it."""
        return self.engine is None and self.leaving is None and not self.is_leaving

    @property
    def is_leaving(self) -> bool:
        """Whether it seems to be on its way out."""
        return self.retires or self.poll_dropped_s is not None

    def seen(self, in_flight: Mapping[str, int]) -> SeenHost:
        """The host as the binder takes it; `in_flight` names the requests of each engine."""
        engine = self.engine
        if engine is None:
            dozing = self.dozing
            return SeenHost(
                self.host_id,
                self.pool,
                draining=not self.is_free,
                since=self.registered_at,
                dozes=None if dozing is None else (dozing.model, dozing.revision),
            )
        return SeenHost(
            self.host_id,
            self.pool,
            SeenEngine(
                engine.engine_id,
                engine.model,
                engine.revision,
                engine.life,
                in_flight.get(engine.engine_id, 0),
                engine.bound_s,
            ),
        )

    @property
    def holder(self) -> Engine | None:
        """The engine that has its accelerators: what it shall run, else what drains or sleeps."""
        return self.engine or self.leaving or self.dozing

    def is_silent(self, now_s: float, host_timeout_s: float) -> bool:
        """Whether it was silent for so long that it counts as lost."""
        silent_s = now_s - self.seen_s
        dropped_s = self.poll_dropped_s
        if dropped_s is None:
            return silent_s > host_timeout_s
        if self.seen_s <= dropped_s and now_s - dropped_s > GONE_AFTER_S:
            return True
        return silent_s > min(DROPPED_POLL_TIMEOUT_S, host_timeout_s)

    def poll_begins(self) -> None:
        """It asks for its assignment."""
        self.polls += 1
        self.poll_dropped_s = None

    def poll_ends(self, now_s: float, *, dropped: bool) -> None:
        """Its long poll was answered, or broke off."""
        self.polls -= 1
        if dropped and not self.polls:
            self.poll_dropped_s = now_s

    def assign(self, engine: Engine | None) -> None:
        """Changes what it shall run, and answers its long poll."""
        gone = self.engine or self.dozing
        self.dozing = None
        if gone is not None and gone.report is not None and gone.phase not in GONE:
            self.leaving = gone
        self.engine = engine
        self.changes.bump()

    def doze(self) -> None:
        """Has its engine sleep; the host is free for any other from now on."""
        self.engine, self.dozing = None, self.engine
        self.changes.bump()

    def wake(self, start_id: str, now_s: float) -> Engine:
        """Has the engine that sleeps on it serve again, for the start of this id.

        Raises:
            LookupError: If none sleeps on it.
        """
        if self.dozing is None:
            raise LookupError("no engine sleeps here")
        engine, self.dozing = self.dozing, None
        engine.start_id, engine.bound_s, engine.ready_s = start_id, now_s, None
        engine.marks, engine.announced = {}, False
        if engine.report is not None:  # it serves nothing until it says so anew
            asleep = {"phase": EnginePhase.SLEEPING, "url": None, "marks": ()}
            engine.report = engine.report.model_copy(update=asleep)
        self.engine = engine
        self.changes.bump()
        return engine

    def observe(self, report: EngineReport | None, now_s: float) -> bool:
        """Takes over a report, on its bound engine or the one that leaves; True if it is news."""
        self.seen_s = now_s
        before = self._gist()
        self._observe(report, now_s)
        return self._gist() != before

    def _gist(self) -> tuple[EnginePhase | None, bool, str | None, tuple[AdapterReport, ...]]:
        engine = self.engine
        if engine is None or engine.report is None:
            return None if engine is None else engine.phase, self.leaving is None, None, ()
        report = engine.report
        return engine.phase, self.leaving is None, report.url, report.adapters

    def _observe(self, report: EngineReport | None, now_s: float) -> None:
        told = None if report is None else report.engine_id
        if self.engine is not None:
            if report is not None and told == self.engine.engine_id:
                self.engine.observe(report, now_s)
                self.retires = self.retires or report.phase is EnginePhase.DRAINING
            elif self.engine.report is not None:
                self.engine.vanished += 1
        if self.dozing is not None:
            if told == self.dozing.engine_id and report is not None:
                self.dozing.observe(report, now_s)
            if told != self.dozing.engine_id or self.dozing.phase in GONE:
                self.assign(None)  # it died in its sleep
        if self.leaving is not None:
            if report is None or told != self.leaving.engine_id or report.phase in GONE:
                self.leaving = None
            else:
                self.leaving.observe(report, now_s)
