"""What is: an engine from its binding to its end, as its host reports it. In memory.

Decides nothing: `binder` does, and `loop` carries it out. Times are monotonic seconds where they
end in `_s`, Unix seconds where they end in `_at`.
"""

from dataclasses import dataclass, field

from models.manifest import AdapterSpec, Manifest
from serving.controller.placement import Life
from serving.protocol import EnginePhase, EngineReport, GangPlace, StartPhase

VANISHED_AFTER = 2
"""Reports without the engine in a row that say that it is gone: one may have crossed its start."""


@dataclass(slots=True)
class Engine:
    """An engine from its binding to its end."""

    engine_id: str
    model: str
    revision: int
    start_id: str
    manifest: Manifest | None
    """None of an engine that was found running and belongs to no deployed model."""
    host_id: str
    node: str
    bound_s: float
    started_at: float
    marks: dict[StartPhase, float] = field(default_factory=dict)
    """Unix seconds at which each phase was reached."""
    report: EngineReport | None = None
    adapters: tuple[AdapterSpec, ...] | None = None
    """LoRA adapters that it shall have, where they are others than its revision's."""
    ready_s: float | None = None
    announced: bool = False
    """`ready` was told to the world."""
    vanished: int = 0
    """Reports in a row in which the host had no engine though it had one before."""
    fetched_s: float = 0.0
    """When it was last seen to wait for its weights."""
    timed_out: bool = False
    """It was not ready in time; the loop says so."""
    hung: bool = False
    """It holds requests and makes no steps; a gateway says so."""
    gang: GangPlace | None = None
    """Its part of an engine that several hosts run; None: all of it."""
    broken: str = ""
    """Why its gang is none any more."""

    @property
    def phase(self) -> EnginePhase:
        """Where it is in its life, as far as its host has told."""
        if self.vanished >= VANISHED_AFTER:
            return EnginePhase.FAILED
        return EnginePhase.STARTING if self.report is None else self.report.phase

    @property
    def life(self) -> Life:
        """The phase as the binder sees it; a bound engine that drains is going to die."""
        if self.timed_out or self.hung or self.broken:
            return Life.DEAD
        match self.phase:
            case EnginePhase.STARTING | EnginePhase.SLEEPING:
                return Life.STARTING
            case EnginePhase.READY:
                return Life.READY
            case _:
                return Life.DEAD

    @property
    def is_share(self) -> bool:
        """Whether it is what a host does for another host's engine."""
        return self.gang is not None and self.gang.rank > 0

    @property
    def served_by(self) -> str:
        """engine_id of the engine that it is, or is a part of: requests run under that."""
        return self.engine_id if self.gang is None else self.gang.leader

    @property
    def wanted_adapters(self) -> tuple[AdapterSpec, ...]:
        """What its host was told to have it load."""
        if self.adapters is not None:
            return self.adapters
        return () if self.manifest is None else self.manifest.adapters

    @property
    def slots(self) -> int:
        """Sequences that it runs at once."""
        if self.report is not None and self.report.slots:
            return self.report.slots
        return 0 if self.manifest is None else self.manifest.engine.max_num_seqs

    @property
    def error(self) -> str | None:
        """Why it failed."""
        if self.report is not None and self.report.error is not None:
            return self.report.error
        if self.broken:
            return self.broken
        if self.timed_out:
            return "it was not ready in time"
        if self.hung:
            return "it hung: it held requests and made no steps"
        return "its host lost it" if self.vanished >= VANISHED_AFTER else None

    @property
    def hint(self) -> str | None:
        """What the operator can do about its failure."""
        return None if self.report is None else self.report.hint

    def observe(self, report: EngineReport, now_s: float) -> None:
        """Takes over what the host says."""
        self.report, self.vanished = report, 0
        self.marks.update({mark.phase: mark.at for mark in report.marks})
        if report.phase is EnginePhase.READY and self.ready_s is None:
            self.ready_s = now_s
