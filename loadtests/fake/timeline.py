"""What the fake engine's server asks of a timing model, and the simplest one: a fixed schedule.

Time is an argument everywhere: seconds on one monotonic clock.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from loadtests.fake.blocks import Token


@dataclass(slots=True, eq=False)
class Sequence:
    """One sequence of tokens that an engine extends; a request has `n` for each prompt."""

    prompt: list[Token]
    max_tokens: int
    reply: Callable[[int], Token]
    """The token that is generated at a position, counted from 0."""
    seed: int = 0
    """Varies the schedule of this sequence where the schedule has a spread."""
    cached: int = 0
    """Prompt tokens that came from the prefix cache."""
    generated: int = 0


@dataclass(frozen=True, slots=True)
class Emission:
    """One generated token."""

    sequence: Sequence
    index: int
    token: Token
    due_s: float
    last: bool


@dataclass(slots=True)
class Counters:
    """What a timing model has done since its start, in tokens, as vLLM counts it."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    preemptions: int = 0


class Timeline(Protocol):
    """Says which token is due when."""

    counters: Counters

    def submit(self, sequence: Sequence, at_s: float) -> None:
        """Adds a sequence that arrived at `at_s`."""

    def cancel(self, sequence: Sequence) -> None:
        """Forgets a sequence at once; one that is not known, or has ended, is no error."""

    def next_due_s(self) -> float | None:
        """When `advance` has something to do; None where nothing is going on."""

    def advance(self, now_s: float) -> list[Emission]:
        """All tokens that are due by `now_s`, in order."""

    @property
    def running(self) -> int:
        """Sequences that hold a slot."""

    @property
    def waiting(self) -> int:
        """Sequences that wait for a slot."""

    @property
    def kv_usage(self) -> float:
        """Used share of the KV cache, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """First token `ttft_s` after arrival, then one each `gap_s`, each varied by up to `spread`.

    The variation of a sequence follows from its seed alone, so that whoever knows the seed knows
    every due time: this is what clients' rulers are checked against.
    """

    ttft_s: float
    gap_s: float
    spread: float = 0.0

    def offsets(self, seed: int, count: int) -> list[float]:
        """Due times of the first `count` tokens, in seconds since the arrival."""
        varied = random.Random(seed)  # noqa: S311, a test schedule
        at_s = 0.0
        offsets: list[float] = []
        for index in range(count):
            mean_s = self.gap_s if index else self.ttft_s
            at_s += mean_s * (1 + self.spread * varied.uniform(-1, 1))
            offsets.append(at_s)
        return offsets


@dataclass(order=True, slots=True)
class _Due:
    at_s: float
    order: int
    sequence: Sequence = field(compare=False)
    remaining: list[float] = field(compare=False)  # due times, last first


class ScheduledTimeline:
    """Every sequence runs at once on its own fixed schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self.counters = Counters()
        self._schedule = schedule
        self._due: list[_Due] = []
        self._live: set[Sequence] = set()
        self._order = 0

    def submit(self, sequence: Sequence, at_s: float) -> None:
        """See Timeline."""
        offsets = self._schedule.offsets(sequence.seed, sequence.max_tokens)
        remaining = [at_s + offset for offset in reversed(offsets)]
        self._order += 1
        heapq.heappush(self._due, _Due(remaining.pop(), self._order, sequence, remaining))
        self._live.add(sequence)
        self.counters.prompt_tokens += len(sequence.prompt)

    def cancel(self, sequence: Sequence) -> None:
        """See Timeline."""
        self._live.discard(sequence)

    def next_due_s(self) -> float | None:
        """See Timeline."""
        while self._due and self._due[0].sequence not in self._live:
            heapq.heappop(self._due)
        return self._due[0].at_s if self._due else None

    def advance(self, now_s: float) -> list[Emission]:
        """See Timeline."""
        emissions: list[Emission] = []
        while (due_s := self.next_due_s()) is not None and due_s <= now_s:
            due = self._due[0]
            sequence = due.sequence
            index = sequence.generated
            sequence.generated += 1
            self.counters.generation_tokens += 1
            last = not due.remaining
            emissions.append(Emission(sequence, index, sequence.reply(index), due_s, last))
            if last:
                self._live.discard(sequence)
                heapq.heappop(self._due)
            else:
                self._order += 1
                following = _Due(due.remaining.pop(), self._order, sequence, due.remaining)
                heapq.heapreplace(self._due, following)
        return emissions

    @property
    def running(self) -> int:
        """See Timeline."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """See Timeline."""
        return 0

    @property
    def kv_usage(self) -> float:
        """See Timeline."""
        return 0.0
