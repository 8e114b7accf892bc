"""Keeps the last starts of each model: which phases they reached, and when. In memory.

A start is traced from the request that caused it to that request's first token, all under the one
`start_id`. A start that nobody asked for (an engine kept ready) has no first token.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.controller.observed import Engine
from serving.protocol import FirstToken, StartPhase

KEPT = 50
"""Starts that are kept for each model."""

PHASE_ORDER = tuple(StartPhase)


@dataclass(slots=True)
class Trace:
    """One start of an engine that got ready; Unix seconds."""

    start_id: str
    engine_id: str
    model: str
    revision: int
    host_id: str
    node: str
    marks: dict[StartPhase, float] = field(default_factory=dict)
    waited_s: float | None = None
    """What the causing request waited for its first token, by its gateway's own clock."""

    def ordered(self) -> list[tuple[StartPhase, float]]:
        """The phases that were reached, in order."""
        return [(phase, self.marks[phase]) for phase in PHASE_ORDER if phase in self.marks]


class Traces:
    """The last starts of all models."""

    def __init__(self) -> None:
        self._by_model: dict[str, deque[Trace]] = {}

    def of(self, model: str) -> list[Trace]:
        """The model's starts that are kept, oldest first."""
        return list(self._by_model.get(model, ()))

    def routed(self, engine: Engine) -> None:
        """An engine is announced to the gateways for the first time."""
        trace = Trace(
            start_id=engine.start_id,
            engine_id=engine.engine_id,
            model=engine.model,
            revision=engine.revision,
            host_id=engine.host_id,
            node=engine.node,
            marks=dict(engine.marks),
        )
        self._by_model.setdefault(engine.model, deque(maxlen=KEPT)).append(trace)

    def first_token(self, model: str, token: FirstToken) -> Trace | None:
        """The causing request was answered; returns the trace that this completes, if any.

        The beginning is then known better than from the report that told of the demand.
        """
        for trace in reversed(self._by_model.get(model, ())):
            mine = (trace.start_id, trace.engine_id) == (token.start_id, token.engine_id)
            if mine and trace.waited_s is None:
                trace.marks[StartPhase.DEMAND_SEEN] = token.at - token.after_s
                trace.marks[StartPhase.FIRST_TOKEN] = token.at
                trace.waited_s = token.after_s
                return trace
        return None

    def keep_only(self, models: Iterable[str]) -> None:
        """Forgets the starts of models that are not deployed any more."""
        for name in self._by_model.keys() - set(models):
            del self._by_model[name]
