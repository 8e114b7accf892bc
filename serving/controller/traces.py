"""Keeps the last starts of each model: which phases they reached, when, and why they failed.

In memory; `trace_log` copies it to the store and to OpenTelemetry. A start is traced from the
request that caused it to that request's first token, all under the one `start_id`. A start that
nobody asked for (an engine kept ready) has no first token; one that fails ends with its cause.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.controller.observed_engine import Engine
from serving.protocol import FirstToken, StartPhase

KEPT = 50
"""Starts that are kept for each model."""

FIRST_TOKEN_WITHIN_S = 30.0
"""After it was routed; a request that has no token by then has left, or was served elsewhere."""

PHASE_ORDER = tuple(StartPhase)


@dataclass(slots=True)
class Trace:
    """One start of an engine that got ready or failed; Unix seconds."""

    start_id: str
    engine_id: str
    model: str
    revision: int
    host_id: str
    node: str
    marks: dict[StartPhase, float] = field(default_factory=dict)
    waited_s: float | None = None
    """What the causing request waited for its first token, by its gateway's own clock."""
    failed_at: float | None = None
    error: str | None = None
    """Why it failed, in one sentence for the operator."""
    hint: str | None = None

    def ordered(self) -> list[tuple[StartPhase, float]]:
        """The phases that were reached, in order."""
        return [(phase, self.marks[phase]) for phase in PHASE_ORDER if phase in self.marks]

    def is_whole(self, now_at: float) -> bool:
        """Whether nothing can be added to it any more."""
        if self.failed_at is not None or self.waited_s is not None:
            return True
        if StartPhase.DEMAND_SEEN not in self.marks:
            return True
        routed_at = self.marks.get(StartPhase.ROUTED, now_at)
        return now_at - routed_at >= FIRST_TOKEN_WITHIN_S


class Traces:
    """The last starts of all models."""

    def __init__(self) -> None:
        self._by_model: dict[str, deque[Trace]] = {}
        self._changed: dict[str, Trace] = {}
        self._open: dict[str, Trace] = {}

    def of(self, model: str) -> list[Trace]:
        """The model's starts that are kept, oldest first."""
        return list(self._by_model.get(model, ()))

    def restore(self, traces: Iterable[Trace]) -> None:
        """Takes over what an earlier controller kept, oldest first; to be called before all else.

        They count as told: the earlier controller did it, or died within a moment of it.
        """
        for trace in traces:
            self._keep(trace)

    def routed(self, engine: Engine) -> None:
        """An engine is announced to the gateways for the first time."""
        self._begin(_trace_of(engine))

    def failed(self, engine: Engine, error: str, at: float) -> None:
        """An engine ended before it was ready, at Unix seconds `at`."""
        trace = _trace_of(engine)
        trace.failed_at, trace.error, trace.hint = at, error, engine.hint
        self._begin(trace)

    def first_token(self, model: str, token: FirstToken) -> Trace | None:
        """The causing request was answered; returns the trace that this completes, if any.

        The beginning is then known better than from the report that told of the demand. What the
        start had behind it by then, as one that was decided when an engine died, is no part of what
        this request waited for.
        """
        for trace in reversed(self._by_model.get(model, ())):
            mine = (trace.start_id, trace.engine_id) == (token.start_id, token.engine_id)
            if mine and trace.waited_s is None and trace.failed_at is None:
                began_at = token.at - token.after_s
                trace.marks = {phase: max(at, began_at) for phase, at in trace.marks.items()}
                trace.marks[StartPhase.DEMAND_SEEN] = began_at
                trace.marks[StartPhase.FIRST_TOKEN] = token.at
                trace.waited_s = token.after_s
                self._changed[trace.engine_id] = trace
                return trace
        return None

    def keep_only(self, models: Iterable[str]) -> None:
        """Forgets the starts of models that are not deployed any more."""
        for name in self._by_model.keys() - set(models):
            del self._by_model[name]

    def take_changed(self) -> list[Trace]:
        """The starts that are new or changed since the last call."""
        changed, self._changed = list(self._changed.values()), {}
        return changed

    def put_back(self, traces: Iterable[Trace]) -> None:
        """Counts traces as changed again: they could not be stored."""
        self._changed = {trace.engine_id: trace for trace in traces} | self._changed

    def take_whole(self, now_at: float) -> list[Trace]:
        """The starts that nothing can be added to any more, each once."""
        whole = [trace for trace in self._open.values() if trace.is_whole(now_at)]
        for trace in whole:
            del self._open[trace.engine_id]
        return whole

    def _begin(self, trace: Trace) -> None:
        self._keep(trace)
        self._changed[trace.engine_id] = self._open[trace.engine_id] = trace

    def _keep(self, trace: Trace) -> None:
        self._by_model.setdefault(trace.model, deque(maxlen=KEPT)).append(trace)


def _trace_of(engine: Engine) -> Trace:
    return Trace(
        start_id=engine.start_id,
        engine_id=engine.engine_id,
        model=engine.model,
        revision=engine.revision,
        host_id=engine.host_id,
        node=engine.node,
        marks=dict(engine.marks),
    )
