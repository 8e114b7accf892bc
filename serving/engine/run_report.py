"""What a host tells of one engine: the report that its run adds to, and when that is news."""

import time
from collections.abc import Callable
from pathlib import Path

from models.errors import PenstockError
from serving import logs
from serving.protocol import EngineAssignment, EnginePhase, EngineReport, PhaseMark, StartPhase

_log = logs.get_logger("penstock.host")


class RunReport:
    """The report of an engine that is assigned from now on.

    Args:
        assignment: The engine.
        log_path: Where its log is going to be.
        on_change: Called with each change that is news.
    """

    def __init__(
        self, assignment: EngineAssignment, log_path: Path, on_change: Callable[[], None]
    ) -> None:
        self._on_change = on_change
        self.now = EngineReport(
            engine_id=assignment.engine_id,
            model=assignment.manifest.name,
            revision=assignment.revision,
            phase=EnginePhase.STARTING,
            start_id=assignment.start_id,
            slots=assignment.manifest.engine.max_num_seqs,
            log_path=str(log_path),
            marks=(PhaseMark(phase=StartPhase.BOUND, at=time.time()),),
            gang=assignment.gang,
        )

    def change(self, **changes: object) -> None:
        """Changes fields, which is news."""
        self.note(**changes)
        _log.info(
            "engine",
            engine_id=self.now.engine_id,
            model=self.now.model,
            phase=self.now.phase,
            reached=self.now.marks[-1].phase,
            error=self.now.error,
        )
        self._on_change()

    def note(self, **changes: object) -> None:
        """Changes fields, which is no news: the host's next report bears it along."""
        self.now = self.now.model_copy(update=changes)

    def mark(self, phase: StartPhase, at: float, **changes: object) -> None:
        """Adds a phase; one that was marked already moves (the last rank loads last)."""
        others = tuple(mark for mark in self.now.marks if mark.phase is not phase)
        self.change(marks=(*others, PhaseMark(phase=phase, at=at)), **changes)

    def fail(self, exc: BaseException) -> None:
        """The engine has failed of this."""
        if isinstance(exc, PenstockError):
            error, hint = str(exc), exc.hint
        else:
            error, hint = "the host could not start the engine", "the host's log says why"
            _log.error("run_failed", engine_id=self.now.engine_id, exc_info=exc)
        self.change(phase=EnginePhase.FAILED, url=None, token=None, error=error, hint=hint)
