"""Keeps what came in for each model, second by second, so that it can be replayed: counts of
requests and tokens, never a prompt. In memory; `scaling_log` moves it to the store."""

from collections.abc import Iterable
from dataclasses import dataclass

from serving.controller.demand import Counts

ASSUMED_PROMPT = 512
"""Tokens, where a gateway does not count them."""
PENDING_MAX = 100_000
"""Seconds that wait for the store; beyond it the oldest are lost."""


@dataclass(frozen=True, slots=True)
class DemandSecond:
    """What happened to one model within a second."""

    model: str
    at: int  # Unix seconds
    arrivals: int = 0
    prompt_tokens: int = 0  # of those that arrived
    finished: int = 0
    output_tokens: int = 0  # of those that finished


class Recorded:
    """The seconds that are not stored yet."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, int], DemandSecond] = {}

    def note(self, model: str, at: float, counts: Counts) -> None:
        """Adds what gateways told at a moment, in Unix seconds."""
        if not (counts.arrivals or counts.finished):
            return
        tokens = counts.arrived_tokens
        if tokens is None:
            tokens = counts.arrivals * ASSUMED_PROMPT
        key = model, int(at)
        before = self._seconds.get(key, DemandSecond(*key))
        self._seconds[key] = DemandSecond(
            model,
            key[1],
            before.arrivals + counts.arrivals,
            before.prompt_tokens + tokens,
            before.finished + counts.finished,
            before.output_tokens + counts.finished_tokens,
        )

    def take_before(self, at: float) -> list[DemandSecond]:
        """The seconds that were over by then, oldest first; they are not kept here any longer."""
        over = [key for key in self._seconds if key[1] < int(at)]
        return sorted((self._seconds.pop(key) for key in over), key=lambda s: (s.at, s.model))

    def put_back(self, seconds: Iterable[DemandSecond]) -> None:
        """Takes seconds back that could not be stored."""
        for second in list(seconds)[-PENDING_MAX:]:
            self._seconds.setdefault((second.model, second.at), second)
