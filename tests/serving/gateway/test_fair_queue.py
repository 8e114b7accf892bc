"""Virtual token counters: turns, lifts, and the bound on the difference in service."""

import random
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway.fair_queue import KEPT_IDLE, FairQueue, VirtualCounters

LONGEST = 50
SLOTS = 4


def test_key_with_the_least_service_is_next_and_equals_go_by_age() -> None:
    counters: VirtualCounters[str] = VirtualCounters()
    for key in "ab":
        counters.begin(key)
    assert counters.least() == "a"
    counters.charge("a", 10)
    assert counters.least() == "b"
    counters.charge("b", 10)
    assert counters.least() == "a"
    counters.end("a")
    counters.end("b")
    assert counters.least() is None


def test_key_that_was_away_saves_nothing_up() -> None:
    counters: VirtualCounters[str] = VirtualCounters()
    counters.begin("busy")
    counters.charge("busy", 1000)
    counters.begin("late")
    assert counters.served("late") == 1000
    counters.charge("busy", 10)
    counters.end("busy")
    counters.end("late")
    counters.begin("later")  # nobody waits: the last to stop waiting is the measure
    assert counters.served("later") == 1000


def test_debt_is_not_forgiven_by_staying_away() -> None:
    counters: VirtualCounters[str] = VirtualCounters()
    counters.begin("greedy")
    counters.begin("calm")
    counters.charge("greedy", 1000)
    counters.end("greedy")
    counters.begin("greedy")
    assert counters.least() == "calm"
    assert counters.served("greedy") == 1000


def test_counters_of_keys_long_gone_are_dropped() -> None:
    counters: VirtualCounters[int] = VirtualCounters()
    for key in range(3 * KEPT_IDLE):
        counters.begin(key)
        counters.charge(key, 1)
        counters.end(key)
    assert len(counters._served) <= KEPT_IDLE + 1


def test_heap_stays_small_under_many_charges() -> None:
    counters: VirtualCounters[str] = VirtualCounters()
    counters.begin("a")
    for _ in range(10_000):
        counters.charge("a", 1)
    assert len(counters._heap) < 100


def test_queue_of_a_key_keeps_its_order_and_loses_whoever_leaves() -> None:
    queue: FairQueue[str, int] = FairQueue()
    for item in (1, 2, 3):
        queue.join("a", item)
    assert queue.leave("a", 2)
    assert not queue.leave("a", 2)
    assert not queue.leave("b", 1)
    assert queue.newest_of("a") == [3, 1]
    assert queue.first() == 1
    assert len(queue) == 2


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=2, max_size=5),
    steps=st.integers(20, 300),
    truthful=st.booleans(),
)
def test_service_of_two_waiting_keys_differs_by_no_more_than_the_papers_bound(
    seed: int, weights: list[float], steps: int, truthful: bool
) -> None:
    """Theorem 4.4: in any interval in which f and g wait all the time, their weighted services
    differ by at most 2 U; U is the most that a key can have unaccounted for: one batch."""
    rng = random.Random(seed)
    keys = [str(number) for number in range(len(weights))]
    weight = dict(zip(keys, weights, strict=True))
    queue: FairQueue[str, int] = FairQueue()
    costs: dict[int, tuple[int, int]] = {}  # what was estimated, what it takes
    served = dict.fromkeys(keys, 0.0)
    history = [dict(served)]
    running: deque[tuple[str, int]] = deque()
    item = 0
    for _ in range(steps):
        for key in keys:
            while len(queue.newest_of(key)) < 2:  # it waits all the time
                item += 1
                takes = rng.randint(1, LONGEST)
                costs[item] = (takes if truthful else rng.randint(1, LONGEST), takes)
                queue.join(key, item)
        if len(running) == SLOTS:
            index = rng.randrange(SLOTS)
            owner, done = running[index]
            del running[index]
            estimated, took = costs[done]
            queue.counters.charge(owner, took - estimated, weight[owner])
        chosen = queue.first()
        assert chosen is not None
        owner = next(key for key in keys if chosen in queue.newest_of(key))
        estimated, took = costs[chosen]
        queue.counters.charge(owner, estimated, weight[owner])
        queue.leave(owner, chosen)
        running.append((owner, chosen))
        served[owner] += took / weight[owner]
        history.append(dict(served))
    bound = 2 * (SLOTS + 1) * LONGEST / min(weights)
    if truthful:  # what is known when it is charged leaves one request's difference, both ways
        bound = 2 * LONGEST / min(weights)
    for f in keys:
        for g in keys:
            gaps = [at[f] - at[g] for at in history]
            assert max(gaps) - min(gaps) <= bound + 1e-6


STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "end", "charge", "pass"]), st.sampled_from("abc"),
              st.integers(0, 30)),
    max_size=40,
)  # fmt: skip


@given(steps=STEPS)
def test_serving_is_to_begin_to_be_charged_and_to_end(
    steps: list[tuple[str, str, int]],
) -> None:
    at_once: VirtualCounters[str] = VirtualCounters()
    in_steps: VirtualCounters[str] = VirtualCounters()
    waiting: set[str] = set()
    for step, key, tokens in steps:
        if step == "pass":
            at_once.serve(key, tokens, 2.0)
            in_steps.begin(key)
            in_steps.charge(key, tokens, 2.0)
            if key not in waiting:
                in_steps.end(key)
            continue
        match step:
            case "begin":
                waiting.add(key)
                at_once.begin(key)
                in_steps.begin(key)
            case "end":
                waiting.discard(key)
                at_once.end(key)
                in_steps.end(key)
            case _:
                at_once.charge(key, tokens)
                in_steps.charge(key, tokens)
        assert at_once.least() == in_steps.least()
        assert [at_once.served(k) for k in "abc"] == [in_steps.served(k) for k in "abc"]
