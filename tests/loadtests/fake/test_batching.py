"""By hand: a step takes 10 ms, 1 ms more for each sequence and 1 ms for each prompt token."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.fake.batching import BatchingTimeline, Shape
from loadtests.fake.timeline import Emission, Sequence

SHAPE = Shape(
    slots=2, step_s=0.010, step_per_seq_s=0.001, prefill_tps=1000.0, step_tokens=100,
    kv_tokens=4096, block_tokens=16,
)  # fmt: skip


def sequence(prompt_tokens: int, max_tokens: int, name: str = "p") -> Sequence:
    prompt = [f"{name}{index}" for index in range(prompt_tokens)]
    return Sequence(list(prompt), max_tokens, reply=lambda index: f"{name}-out{index}")


def finish(engine: BatchingTimeline) -> list[Emission]:
    emissions: list[Emission] = []
    while (due_s := engine.next_due_s()) is not None:
        emissions += engine.advance(due_s)
    return emissions


def due(emissions: list[Emission], of: Sequence) -> list[float]:
    return [pytest.approx(e.due_s) for e in emissions if e.sequence is of]


def test_lone_sequence_prefills_then_decodes_step_by_step() -> None:
    engine = BatchingTimeline(SHAPE)
    one = sequence(50, 3)
    engine.submit(one, 5.0)
    # Prefill: 10 + 1 + 50 ms; then two decode steps of 11 ms.
    assert due(finish(engine), one) == [5.061, 5.072, 5.083]


def test_prompt_past_the_step_budget_is_prefilled_in_chunks() -> None:
    engine = BatchingTimeline(SHAPE)
    one = sequence(250, 1)
    engine.submit(one, 0.0)
    # Chunks of 100, 100 and 50 tokens: 111 + 111 + 61 ms.
    assert due(finish(engine), one) == [0.283]


def test_prefill_shares_its_steps_with_decoding() -> None:
    engine = BatchingTimeline(SHAPE)
    first, second = sequence(10, 4, "a"), sequence(150, 2, "b")
    engine.submit(first, 0.0)
    engine.submit(second, 0.005)
    # Step 1 (first alone): 10 + 1 + 10 = 21 ms. Step 2: both, one decode token and 99 prompt
    # tokens: 10 + 2 + 99 = 111 -> 132 ms. Step 3: 51 prompt tokens: 63 -> 195 ms. Step 4: 12 ms.
    emissions = finish(engine)
    assert due(emissions, first) == [0.021, 0.132, 0.195, 0.207]
    assert due(emissions, second) == [0.195, 0.207]


def test_third_sequence_waits_for_one_of_two_slots() -> None:
    engine = BatchingTimeline(SHAPE)
    first, second, third = sequence(10, 3, "a"), sequence(10, 1, "b"), sequence(10, 1, "c")
    for each in (first, second, third):
        engine.submit(each, 0.0)
    assert (engine.running, engine.waiting) == (1, 2)  # `first` started the step alone
    emissions = engine.advance(0.0211)
    assert (engine.running, engine.waiting) == (2, 1)
    emissions += finish(engine)
    # Step 1: 21 ms. Steps 2 and 3: a decoding and a prefilling sequence, 10 + 2 + 10 ms each.
    assert due(emissions, first) == [0.021, 0.043, 0.065]
    assert due(emissions, second) == [0.043]
    assert due(emissions, third) == [0.065]


def test_sequence_that_arrives_during_a_late_step_starts_no_earlier_than_it_arrived() -> None:
    engine = BatchingTimeline(SHAPE)
    first, second = sequence(10, 1, "a"), sequence(10, 1, "b")
    engine.submit(first, 0.0)  # ends at 21 ms, but nobody calls `advance` until 100 ms
    engine.submit(second, 0.090)
    assert due(engine.advance(0.100), first) == [0.021]
    assert engine.next_due_s() == pytest.approx(0.111)


def test_idle_engine_has_nothing_due() -> None:
    engine = BatchingTimeline(SHAPE)
    assert engine.next_due_s() is None
    assert engine.advance(99.0) == []


def test_shared_prefix_is_computed_once() -> None:
    engine = BatchingTimeline(SHAPE)
    first, second = sequence(64, 1), sequence(64, 1)
    engine.submit(first, 0.0)
    finish(engine)
    engine.submit(second, 1.0)
    # Of 64 equal tokens, three full blocks (48) come from the cache: the fourth is computed anew,
    # because at least one token must be. 10 + 1 + 16 ms.
    assert due(finish(engine), second) == [1.027]
    assert (first.cached, second.cached) == (0, 48)
    assert (engine.counters.cache_queries, engine.counters.cache_hits) == (128, 48)


def test_generated_tokens_are_cached_for_the_next_turn() -> None:
    engine = BatchingTimeline(SHAPE)
    first = sequence(30, 20)
    engine.submit(first, 0.0)
    replies = [e.token for e in finish(engine)]
    second = Sequence([*first.prompt, *replies, "more"], 1, reply=lambda _index: "x")
    engine.submit(second, 1.0)
    finish(engine)
    # 30 + 20 tokens, of which the last was never fed back: 49 computed, 3 full blocks.
    assert second.cached == 48


def test_prefix_cache_can_be_turned_off() -> None:
    engine = BatchingTimeline(Shape(prefix_cache=False))
    for at_s in (0.0, 10.0):
        one = sequence(64, 1)
        engine.submit(one, at_s)
        finish(engine)
        assert one.cached == 0
    assert engine.counters.cache_queries == 0
    assert engine.kv_usage == 0.0


def test_longest_unused_blocks_are_evicted_first() -> None:
    # Room for 4 blocks of 16 tokens. A prompt of 31 tokens takes two and leaves one in the cache.
    engine = BatchingTimeline(Shape(kv_tokens=64))
    cached = {}
    for turn, name in enumerate("abcdacb"):
        one = sequence(31, 1, name)
        engine.submit(one, float(turn))
        finish(engine)
        cached[f"{turn}{name}"] = one.cached
    # d evicts a (three are cached, two are needed), a evicts b; c is still there, b is not.
    assert cached == {"0a": 0, "1b": 0, "2c": 0, "3d": 0, "4a": 0, "5c": 16, "6b": 0}


def test_newest_sequence_is_preempted_when_blocks_run_out() -> None:
    shape = Shape(slots=2, step_s=0.01, step_per_seq_s=0.0, prefill_tps=1e9, kv_tokens=64)
    engine = BatchingTimeline(shape)
    old, new = sequence(31, 17, "old"), sequence(31, 17, "new")
    engine.submit(old, 0.0)
    engine.submit(new, 0.0)
    emissions = finish(engine)
    # Both reach 32 tokens in their 2 blocks each; then one must yield a third block to the other.
    assert engine.counters.preemptions == 1
    assert due(emissions, old)[-1] == 0.17
    assert len(due(emissions, new)) == 17
    assert engine.counters.generation_tokens == 34
    assert engine.kv_usage == 0.0


def test_sequence_that_can_never_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        BatchingTimeline(Shape(kv_tokens=64)).submit(sequence(60, 5), 0.0)


@pytest.mark.parametrize("cancelled_at", ["waiting", "prefilling", "decoding"])
def test_cancel_frees_slot_and_blocks_at_once(cancelled_at: str) -> None:
    engine = BatchingTimeline(Shape(slots=1, step_tokens=32))
    first, second = sequence(64, 10, "a"), sequence(64, 10, "b")
    engine.submit(first, 0.0)
    engine.submit(second, 0.0)
    if cancelled_at == "waiting":
        engine.cancel(second)
        assert (engine.running, engine.waiting) == (1, 0)
        assert {e.sequence for e in finish(engine)} == {first}
        return
    while cancelled_at == "decoding" and first.generated < 3:
        engine.advance(engine.next_due_s() or 0.0)
    engine.cancel(first)
    engine.cancel(first)  # harmless
    assert (engine.running, engine.waiting, engine.kv_usage) == (0, 1, 0.0)
    assert {e.sequence for e in finish(engine)} == {second}


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_token_comes_once_and_nothing_is_left_over(seed: int) -> None:
    rng = random.Random(seed)
    engine = BatchingTimeline(Shape(slots=4, step_tokens=64, kv_tokens=256))
    sent: list[Sequence] = []
    dropped: set[Sequence] = set()
    emissions: list[Emission] = []
    now_s = 0.0
    for _ in range(30):
        now_s += rng.random() * 0.02
        one = sequence(rng.randint(1, 120), rng.randint(1, 100), rng.choice("abc"))
        sent.append(one)
        engine.submit(one, now_s)
        emissions += engine.advance(now_s)
        assert engine.running <= 4
        assert engine.kv_usage <= 1.0
        if rng.random() < 0.3:
            dropped.add(leaver := rng.choice(sent))
            engine.cancel(leaver)
    emissions += finish(engine)
    for one in sent:
        indices = [e.index for e in emissions if e.sequence is one]
        assert indices == list(range(len(indices)))
        assert one in dropped or len(indices) == one.max_tokens
    assert [e.due_s for e in emissions] == sorted(e.due_s for e in emissions)
    assert (engine.running, engine.waiting, engine.kv_usage) == (0, 0, 0.0)
