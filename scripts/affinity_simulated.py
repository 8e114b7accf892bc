"""A trace's prompts through the gateway's own line and a balancer into fake engines, each with a
prefix cache of its own; in simulated time (`loadtests.fake`)."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtests.fake.batching import BatchingTimeline, Shape
from loadtests.fake.timeline import Sequence as EngineSequence
from loadtests.recordings import Row
from serving.gateway.affinity import keys_of
from serving.gateway.balancer import Balancer
from serving.gateway.endpoint import PREFILL_TOKENS, Endpoint
from serving.gateway.prompts import PREFIX_BYTES
from serving.gateway.queue import WaitingLine
from serving.gateway.tickets import Ticket
from serving.protocol import EndpointRoute

BLOCK_TOKENS = 512
"""Of a prefix block of the trace."""
BYTES_A_TOKEN = 4
ENGINES = 4


class RoundRobin(Balancer):
    """The next endpoint in turn that has room."""

    _turn = 0

    def choose(self, ticket: Ticket, now_s: float) -> Endpoint | None:
        """See Balancer."""
        endpoints = list(self)
        for step in range(len(endpoints)):
            endpoint = endpoints[(self._turn + step) % len(endpoints)]
            if endpoint.has_room(ticket, now_s):
                self._turn = (self._turn + step + 1) % len(endpoints)
                return endpoint
        return None


class FewestTokens(Balancer):
    """The endpoint with the fewest outstanding tokens, whatever the prompt says."""

    def choose(self, ticket: Ticket, now_s: float) -> Endpoint | None:
        """See Balancer."""
        ticket.keys = ()
        return super().choose(ticket, now_s)


@dataclass(frozen=True, slots=True)
class Policy:
    """Who balances over how many engines, each of how many times the size."""

    name: str
    balancer: type[Balancer]
    engines: int = ENGINES
    size: int = 1


POLICIES = (
    Policy("one shared cache", Balancer, engines=1, size=ENGINES),
    Policy("prefix affinity", Balancer),
    Policy("fewest tokens", FewestTokens),
    Policy("round robin", RoundRobin),
)


@dataclass(frozen=True, slots=True)
class Found:
    """How one policy did; loads are the largest engine's over the mean."""

    policy: str
    hit_rate: float
    requests_balance: float
    tokens_balance: float  # prompts and outputs sent to each engine
    computed_balance: float  # without what came from the caches
    ttft_p50_s: float
    ttft_p99_s: float


@dataclass(slots=True, eq=False)
class Engine:
    """A fake engine, the gateway's view of it, and its sums."""

    endpoint: Endpoint
    timeline: BatchingTimeline
    requests: int = 0
    tokens: int = 0
    due_s: float | None = None


@dataclass(slots=True)
class Replay:
    """One policy over one trace, in simulated time."""

    policy: Policy
    rows: Sequence[Row]
    scale: int
    line: WaitingLine[Ticket] = field(default_factory=lambda: WaitingLine(10**6, 10**12))
    ttft_s: list[float] = field(default_factory=list)
    _events: list[tuple[float, int, Engine | None]] = field(default_factory=list)
    _number: int = 0
    _work: dict[Ticket, tuple[Row, EngineSequence]] = field(default_factory=dict)
    _tickets: dict[EngineSequence, tuple[Ticket, Engine]] = field(default_factory=dict)

    def run(self) -> Found:
        """Replays the trace to its end."""
        balancer = self.policy.balancer(PREFILL_TOKENS * self.policy.size // self.scale)
        shape = shape_of(self.policy.size, self.scale)
        routes = [
            EndpointRoute(
                engine_id=f"engine-{n}", url="http://fake", token="", revision=1,
                slots=shape.slots, kv_tokens=shape.kv_tokens,
            )
            for n in range(self.policy.engines)
        ]  # fmt: skip
        balancer.update(routes, 0.0)
        engines = {one: Engine(one, BatchingTimeline(shape)) for one in balancer}
        arrivals = iter(self.rows)
        coming = next(arrivals, None)
        while coming is not None or self._events:
            if coming is not None and (not self._events or coming.at_s <= self._events[0][0]):
                now_s = coming.at_s
                self.line.join(self._ticket(coming), now_s)
                coming = next(arrivals, None)
            else:
                now_s, _, engine = heapq.heappop(self._events)
                if engine is None or engine.due_s != now_s:
                    continue
                self._advance(engine, balancer, now_s)
            while (ticket := self.line.first(now_s)) is not None:
                endpoint = balancer.choose(ticket, now_s)
                if endpoint is None:
                    break
                self._send(ticket, engines[endpoint], balancer, now_s)
        return self._found(list(engines.values()))

    def _ticket(self, row: Row) -> Ticket:
        prompt = max(2, row.prompt_tokens // self.scale)
        output = max(1, row.output_tokens // self.scale)
        text = b"".join(
            b"%08x" % block * (BLOCK_TOKENS * BYTES_A_TOKEN // 8)
            for block in row.block_ids[: PREFIX_BYTES // BYTES_A_TOKEN // BLOCK_TOKENS]
        )
        prefix = text[: row.prompt_tokens * BYTES_A_TOKEN]
        ticket = Ticket(
            "-", row.at_s, float("inf"), tenant="org", prompt_tokens=prompt, output_tokens=output,
            keys=keys_of("org", "", prefix),
        )  # fmt: skip
        size = BLOCK_TOKENS // self.scale
        tokens = [block * size + i for block in row.block_ids for i in range(size)][:prompt]
        tokens += [-1 - i for i in range(prompt - len(tokens))]
        sequence = EngineSequence(list(tokens), output, reply=lambda at: f"{at}")
        self._work[ticket] = row, sequence
        return ticket

    def _send(self, ticket: Ticket, engine: Engine, balancer: Balancer, now_s: float) -> None:
        self.line.served(ticket, now_s)
        balancer.take(engine.endpoint, ticket, now_s)
        _, sequence = self._work.pop(ticket)
        self._tickets[sequence] = ticket, engine
        engine.requests += 1
        engine.tokens += ticket.tokens
        engine.timeline.submit(sequence, now_s)
        self._note_due(engine)

    def _advance(self, engine: Engine, balancer: Balancer, now_s: float) -> None:
        for emission in engine.timeline.advance(now_s):
            ticket, _ = self._tickets[emission.sequence]
            if emission.index == 0:
                engine.endpoint.prefilled(ticket)
                self.ttft_s.append(emission.due_s - ticket.arrived_s)
            if emission.last:
                balancer.release(engine.endpoint, ticket)
                del self._tickets[emission.sequence]
        self._note_due(engine)

    def _note_due(self, engine: Engine) -> None:
        due_s = engine.timeline.next_due_s()
        if due_s is not None and due_s != engine.due_s:
            self._number += 1
            heapq.heappush(self._events, (due_s, self._number, engine))
        engine.due_s = due_s

    def _found(self, engines: Sequence[Engine]) -> Found:
        counters = [engine.timeline.counters for engine in engines]
        hits = sum(each.cache_hits for each in counters)
        computed = [engine.tokens - engine.timeline.counters.cache_hits for engine in engines]
        ttft_s = sorted(self.ttft_s)
        return Found(
            self.policy.name,
            hits / sum(each.cache_queries for each in counters),
            balance([engine.requests for engine in engines]),
            balance([engine.tokens for engine in engines]),
            balance(computed),
            ttft_s[len(ttft_s) // 2],
            ttft_s[len(ttft_s) * 99 // 100],
        )


def shape_of(size: int, scale: int) -> Shape:
    """An engine of `size` H200-like replicas, for lengths divided by `scale`."""
    base = Shape()
    return Shape(
        slots=base.slots * size,
        step_s=base.step_s,
        step_per_seq_s=base.step_per_seq_s / size,
        prefill_tps=base.prefill_tps * size / scale,
        step_tokens=base.step_tokens * size // scale,
        kv_tokens=base.kv_tokens * size // scale,
    )


def balance(loads: Sequence[float]) -> float:
    """The largest over the mean."""
    return max(loads) * len(loads) / sum(loads)
