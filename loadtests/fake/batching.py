"""A timing model of continuous batching with chunked prefill. Pure: time is an argument.

An engine works in steps. In each, every running sequence gets the tokens that it still lacks, up
to the step's token budget: one for a sequence that decodes, a chunk of the prompt for one that
prefills. A step takes `step_s + step_per_seq_s * sequences + prefilled tokens / prefill_tps`; a
sequence whose known tokens are all computed at its end gains one. Waiting sequences join in order
of arrival at the start of a step, where a slot and blocks are free. Where blocks run out, the
newest running sequence goes back to the head of the queue and is computed anew later.
"""

from collections import deque
from dataclasses import dataclass, field

from loadtests.fake.blocks import BlockPool, Token, block_hashes, next_hash
from loadtests.fake.timeline import Counters, Emission, Sequence


@dataclass(frozen=True, slots=True)
class Shape:
    """How fast and how large the engine is; the defaults are those of an H200-like replica."""

    slots: int = 128
    step_s: float = 0.008
    step_per_seq_s: float = 0.00012
    prefill_tps: float = 35_000.0
    """Prompt tokens a second."""
    step_tokens: int = 8192
    """Tokens that one step computes at most."""
    long_prefill_tokens: int = 0
    """Of one prompt a step computes no more while there are other sequences; 0: all that fits."""
    kv_tokens: int = 1_000_000
    block_tokens: int = 16
    prefix_cache: bool = True

    def step_duration_s(self, sequences: int, prefill_tokens: int) -> float:
        """How long a step of this make-up takes."""
        return self.step_s + self.step_per_seq_s * sequences + prefill_tokens / self.prefill_tps


@dataclass(slots=True, eq=False)
class _Run:
    """A sequence inside the engine."""

    sequence: Sequence
    arrived_s: float
    tokens: list[Token]
    computed: int = 0
    hashes: list[int] = field(default_factory=list)
    private: int = 0
    seen: bool = False  # counted in the cache's statistics already
    has_slot: bool = False

    @property
    def decodes(self) -> bool:
        return self.sequence.generated > 0 and len(self.tokens) - self.computed == 1


@dataclass(frozen=True, slots=True)
class _Step:
    ends_s: float
    work: list[tuple[_Run, int]]


class BatchingTimeline:
    """One engine; see the module's docstring for the rules."""

    def __init__(self, shape: Shape) -> None:
        self.counters = Counters()
        self.shape = shape
        self._longest_chunk = shape.long_prefill_tokens or shape.step_tokens
        self._pool = BlockPool(shape.kv_tokens // shape.block_tokens)
        self._waiting: deque[_Run] = deque()
        self._running: list[_Run] = []
        self._runs: dict[Sequence, _Run] = {}
        self._step: _Step | None = None

    @property
    def running(self) -> int:
        """See Timeline."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """See Timeline."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """See Timeline."""
        return self._pool.used / self._pool.total

    def submit(self, sequence: Sequence, at_s: float) -> None:
        """See Timeline. Prompt and max_tokens together must fit the KV cache.

        Raises:
            ValueError: The sequence could never finish.
        """
        if len(sequence.prompt) + sequence.max_tokens > self._pool.total * self.shape.block_tokens:
            raise ValueError("the sequence does not fit the KV cache")
        run = _Run(sequence, at_s, list(sequence.prompt))
        self._runs[sequence] = run
        self._waiting.append(run)
        if self._step is None:
            self._step = self._begin(at_s)

    def cancel(self, sequence: Sequence) -> None:
        """See Timeline. The step that is under way keeps its length."""
        run = self._runs.pop(sequence, None)
        if run is None:
            return
        if run.has_slot:
            run.has_slot = False
            self._running.remove(run)
            self._release(run)
        else:
            self._waiting.remove(run)

    def next_due_s(self) -> float | None:
        """See Timeline."""
        return self._step.ends_s if self._step else None

    def advance(self, now_s: float) -> list[Emission]:
        """See Timeline."""
        emissions: list[Emission] = []
        while self._step is not None and self._step.ends_s <= now_s:
            emissions += self._end(self._step)
            self._step = self._begin(self._step.ends_s)
        return emissions

    def _begin(self, at_s: float) -> _Step | None:
        """Plans the step that starts at `at_s`; None where there is nothing to do."""
        budget = self.shape.step_tokens
        work: list[tuple[_Run, int]] = []
        preempted = False
        for run in list(self._running):
            count = min(len(run.tokens) - run.computed, budget, self._chunk_tokens())
            if not run.has_slot or count == 0:
                continue
            while not self._take_blocks(run, count):
                preempted = True
                if self._preempt_newest() is run:
                    break
            else:
                work.append((run, count))
                budget -= count
        while not preempted and budget > 0 and (joined := self._admit(at_s, budget)) is not None:
            count = min(len(joined.tokens) - joined.computed, budget, self._chunk_tokens())
            work.append((joined, count))
            budget -= count
        if not work:
            return self._begin_later(at_s)
        prefill_tokens = sum(count for run, count in work if not run.decodes)
        return _Step(at_s + self.shape.step_duration_s(len(work), prefill_tokens), work)

    def _chunk_tokens(self) -> int:
        """As vLLM's `long_prefill_token_threshold`: a prompt that is alone takes the whole step."""
        is_alone = len(self._runs) < 2
        return self.shape.step_tokens if is_alone else self._longest_chunk

    def _begin_later(self, at_s: float) -> _Step | None:
        """An idle engine starts when the next sequence arrives, which a late caller may have
        submitted with a time that lies after the step that just ended."""
        if self._waiting and self._waiting[0].arrived_s > at_s:
            return self._begin(self._waiting[0].arrived_s)
        return None

    def _admit(self, at_s: float, budget: int) -> _Run | None:
        """Moves the first waiting sequence into a slot, if it fits."""
        if not self._waiting or len(self._running) >= self.shape.slots:
            return None
        run = self._waiting[0]
        if run.arrived_s > at_s:
            return None
        hits: list[int] = []
        if self.shape.prefix_cache:
            # At least one token is computed even where all are cached: it yields the next one.
            reusable = (len(run.tokens) - 1) // self.shape.block_tokens
            hashes = block_hashes(run.tokens, self.shape.block_tokens)[:reusable]
            hits = hashes[: self._pool.match(hashes)]
        self._pool.hold(hits)
        run.hashes = hits
        run.computed = len(hits) * self.shape.block_tokens
        count = min(len(run.tokens) - run.computed, budget, self._chunk_tokens())
        if not self._take_blocks(run, count):
            self._release(run)
            return None
        self._waiting.popleft()
        run.has_slot = True
        self._running.append(run)
        if not run.seen:
            run.seen = True
            run.sequence.cached = run.computed
            self.counters.cache_queries += len(run.tokens) if self.shape.prefix_cache else 0
            self.counters.cache_hits += run.computed
        return run

    def _end(self, step: _Step) -> list[Emission]:
        """Books the work of a step and yields its tokens."""
        emissions: list[Emission] = []
        for run, count in step.work:
            if not run.has_slot:
                continue
            run.computed += count
            self._seal(run)
            if run.computed < len(run.tokens):
                continue
            sequence = run.sequence
            index = sequence.generated
            if index == 0:
                self.counters.prompt_tokens += len(sequence.prompt)
            token = sequence.reply(index)
            run.tokens.append(token)
            sequence.generated += 1
            self.counters.generation_tokens += 1
            last = sequence.generated >= sequence.max_tokens
            emissions.append(Emission(sequence, index, token, step.ends_s, last))
            if last:
                self.cancel(sequence)
        return emissions

    def _take_blocks(self, run: _Run, count: int) -> bool:
        """Takes the blocks that `count` more tokens of the sequence need, all or none."""
        needed = -(-(run.computed + count) // self.shape.block_tokens)
        missing = needed - len(run.hashes) - run.private
        if not self._pool.grow(missing):
            return False
        run.private += missing
        return True

    def _seal(self, run: _Run) -> None:
        """Makes the blocks that are full now available to others."""
        if not self.shape.prefix_cache:
            return
        size = self.shape.block_tokens
        for index in range(len(run.hashes), run.computed // size):
            block = next_hash(run.hashes, run.tokens[index * size : (index + 1) * size])
            self._pool.seal(block)
            run.hashes.append(block)
            run.private -= 1

    def _preempt_newest(self) -> _Run:
        run = self._running.pop()
        run.has_slot = False
        self._release(run)
        self._waiting.appendleft(run)
        self.counters.preemptions += 1
        return run

    def _release(self, run: _Run) -> None:
        self._pool.release(run.hashes, run.private)
        run.hashes, run.private, run.computed = [], 0, 0
