"""Requests of two tenants through the gateway's own line and balancer into fake engines.

In simulated time: the engines have a timing model of continuous batching (`loadtests.fake`).
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from loadtests.fake.batching import BatchingTimeline, Shape
from loadtests.fake.timeline import Sequence as EngineSequence
from models.errors import QueueFullError
from serving.gateway.balancer import Balancer
from serving.gateway.desk import Desk
from serving.gateway.endpoint import PREFILL_TOKENS, Endpoint
from serving.gateway.queue import WaitingLine
from serving.gateway.tickets import Ticket
from serving.protocol import EndpointRoute

CALM, FLOOD = "calm", "flood"
MAX_QUEUED, MAX_TOKENS = 1000, 4_000_000
DEADLINE_S = 120.0
FLOOD_AT_S = 20.0
"""The calm tenant is there first; what it sees from then on is measured."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to come."""

    at_s: float
    tenant: str
    prompt: int
    output: int
    expected: int
    """The output that the gateway expects: the mean of such requests."""


@dataclass(slots=True)
class Seen:
    """What one tenant saw."""

    ttft_s: list[float] = field(default_factory=list)
    refused: int = 0
    tokens: int = 0
    """Of whole answers, prompts included."""

    def quantile(self, q: float) -> float:
        """Of the time to the first token; a request that got none counts as endless."""
        values = sorted(self.ttft_s) + [float("inf")] * self.refused
        return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


class Run:
    """Requests through a line into engines, in simulated time."""

    def __init__(self, shape: Shape, engines: int, *, fair: bool) -> None:
        self._fair = fair
        balancer = Balancer(PREFILL_TOKENS)
        self._desk: Desk[Ticket] = Desk(WaitingLine(MAX_QUEUED, MAX_TOKENS), balancer)
        balancer.update(
            [
                EndpointRoute(
                    engine_id=f"engine-{n}", url="http://fake", token="", revision=1,
                    slots=shape.slots, kv_tokens=shape.kv_tokens,
                )
                for n in range(engines)
            ],
            0.0,
        )  # fmt: skip
        self._timelines = {one: BatchingTimeline(shape) for one in balancer}
        self._due: list[tuple[float, int, Endpoint]] = []
        self._kinds: dict[Ticket, Arrival] = {}
        self._tickets: dict[EngineSequence, tuple[Ticket, Endpoint]] = {}
        self._events = 0
        self.seen = {CALM: Seen(), FLOOD: Seen()}

    @property
    def generated(self) -> int:
        """Tokens of answers so far."""
        return sum(one.counters.generation_tokens for one in self._timelines.values())

    def run(self, arrivals: Iterator[Arrival], until_s: float) -> dict[str, Seen]:
        """Runs to `until_s`; what has no first token by then, and came early enough to expect
        one, counts as refused."""
        coming = next(arrivals, None)
        while True:
            due_s = self._due[0][0] if self._due else float("inf")
            at_s = coming.at_s if coming is not None else float("inf")
            now_s = min(due_s, at_s)
            if now_s > until_s:
                break
            if coming is not None and at_s <= due_s:
                self._arrive(coming)
                coming = next(arrivals, None)
            else:
                _, _, endpoint = heapq.heappop(self._due)
                self._advance(endpoint, now_s)
            self._pump(now_s)
        return self.seen

    def _arrive(self, arrival: Arrival) -> None:
        ticket = Ticket(
            "-", arrival.at_s, arrival.at_s + DEADLINE_S, prompt_tokens=arrival.prompt,
            output_tokens=arrival.expected, tenant=arrival.tenant if self._fair else "",
        )  # fmt: skip
        self._kinds[ticket] = arrival
        if (endpoint := self._desk.come(ticket, arrival.at_s)) is not None:
            self._submit(ticket, endpoint, arrival.at_s)
            return
        try:
            gone = self._desk.line.join(ticket, arrival.at_s)
        except QueueFullError:
            gone = [ticket]
        for each in gone:
            self.seen[self._kinds.pop(each).tenant].refused += 1

    def _pump(self, now_s: float) -> None:
        for ticket, endpoint in self._desk.grants(now_s):
            self._submit(ticket, endpoint, now_s)

    def _submit(self, ticket: Ticket, endpoint: Endpoint, now_s: float) -> None:
        arrival = self._kinds[ticket]
        sequence = EngineSequence([0] * arrival.prompt, arrival.output, reply=str)
        self._tickets[sequence] = ticket, endpoint
        self._timelines[endpoint].submit(sequence, now_s)
        self._note_due(endpoint)

    def _advance(self, endpoint: Endpoint, now_s: float) -> None:
        for emission in self._timelines[endpoint].advance(now_s):
            ticket, _ = self._tickets[emission.sequence]
            arrival = self._kinds[ticket]
            seen = self.seen[arrival.tenant]
            if emission.index == 0:
                endpoint.prefilled(ticket)
                if ticket.arrived_s >= FLOOD_AT_S:
                    seen.ttft_s.append(now_s - ticket.arrived_s)
            if emission.last:
                took = arrival.prompt + arrival.output
                seen.tokens += took if ticket.arrived_s >= FLOOD_AT_S else 0
                self._desk.release(ticket, endpoint, took, now_s)
                del self._tickets[emission.sequence], self._kinds[ticket]
        self._note_due(endpoint)

    def _note_due(self, endpoint: Endpoint) -> None:
        due_s = self._timelines[endpoint].next_due_s()
        if due_s is not None and all(one is not endpoint for _, _, one in self._due):
            self._events += 1
            heapq.heappush(self._due, (due_s, self._events, endpoint))
