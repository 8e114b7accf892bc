"""The policy as a story: up at once, down late, to zero, and what it does when it cannot see."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.capacity import Capacity
from autoscaler.policy import WINDOW_MAX_S, decide, first_memory
from autoscaler.snapshot import Decision, EngineLoad, Memory, Reason, Snapshot, Spec

H200 = Capacity(slots=128, prefill_tps=35_000.0, step_s=0.008, step_per_seq_s=0.000_12)
SPEC = Spec(min=0, max=64, idle_timeout_s=300.0)
TICK_S = 0.25


def quiet(at_s: float, **seen: object) -> Snapshot:
    """Nothing waits and nothing runs, except for what is given."""
    plain = Snapshot(at_s, 0, 0, 0, 0, queued_tokens=0, cold_start_s=2.0, capacity=H200)
    return replace(plain, **seen)  # type: ignore[arg-type]


def steady(at_s: float, per_tick: int, ready: int, in_flight: int) -> Snapshot:
    """Requests of 1,000 tokens in and 200 out come and go evenly."""
    return quiet(
        at_s, ready=ready, in_flight=in_flight, arrivals=per_tick, arrived_tokens=per_tick * 1000,
        finished=per_tick, finished_tokens=per_tick * 200,
    )  # fmt: skip


def run_steadily(per_tick: int, ticks: int, in_flight: int) -> list[Decision]:
    memory, decisions = first_memory(0.0, SPEC), []
    for tick in range(ticks):
        decision, memory = decide(
            steady(tick * TICK_S, per_tick, memory.target, in_flight), memory, SPEC
        )
        decisions.append(decision)
    return decisions


def test_policy_wakes_a_sleeping_model_at_its_first_request() -> None:
    decision, _ = decide(
        quiet(5.0, queued=1, queued_tokens=100, arrivals=1, arrived_tokens=100),
        first_memory(0.0, SPEC),
        SPEC,
    )
    assert (decision.target, decision.reason) == (1, Reason.DEMAND)


def test_policy_starts_as_many_as_a_burst_needs_at_once() -> None:
    # 300 prompts of 2,000 tokens are 17 engine seconds of prefill; TTFT is 2 s.
    decision, _ = decide(
        quiet(0.0, queued=300, queued_tokens=600_000, arrivals=300, arrived_tokens=600_000),
        first_memory(0.0, SPEC),
        SPEC,
    )
    assert decision.target >= 15
    assert decision.reason in {Reason.ARRIVALS, Reason.BACKLOG}


def test_policy_counts_slots_where_tokens_are_few() -> None:
    decision, _ = decide(
        quiet(0.0, ready=1, in_flight=128, queued=200), first_memory(0.0, SPEC), SPEC
    )
    assert (decision.target, decision.reason) == (3, Reason.SLOTS)


def test_policy_holds_a_peak_for_its_window_and_then_lets_go() -> None:
    memory = Memory(target=9, busy_at_s=0.0, at_s=0.0, peaks=((0.0, 9),))
    during, _ = decide(quiet(20.0, ready=9, in_flight=1), memory, SPEC)
    assert (during.target, during.reason) == (9, Reason.HOLD)
    after, _ = decide(quiet(during.window_s + 1, ready=9, in_flight=1), memory, SPEC)
    assert after.target == 1


def test_window_grows_with_misses_and_shrinks_without() -> None:
    memory = first_memory(0.0, SPEC)
    _, missed = decide(quiet(1.0, ready=1, arrivals=100, missed=50), memory, SPEC)
    _, served = decide(quiet(1.0, ready=1, arrivals=100), memory, SPEC)
    assert missed.stretch > 0 > served.stretch
    after, _ = decide(quiet(2.0, ready=1), missed, SPEC)
    before, _ = decide(quiet(2.0, ready=1), served, SPEC)
    assert before.window_s < after.window_s <= WINDOW_MAX_S + 1e-6


def test_first_window_is_short_where_a_start_fits_into_ttft() -> None:
    memory = first_memory(0.0, SPEC)
    hidden, _ = decide(quiet(0.0, in_flight=1, cold_start_s=0.5), memory, SPEC)
    visible, _ = decide(quiet(0.0, in_flight=1, cold_start_s=15.0), memory, SPEC)
    assert hidden.window_s == pytest.approx(10.0)
    assert visible.window_s == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("cold_start_s", "limit_s"),
    [(0.5, 30.0), (15.0, 300.0), (None, 300.0)],
    ids=["hidden in TTFT", "costs a miss", "unknown"],
)
def test_policy_sleeps_after_an_idle_time_that_weighs_the_start(
    cold_start_s: float | None, limit_s: float
) -> None:
    memory = Memory(target=1, busy_at_s=0.0, at_s=0.0)
    still, _ = decide(quiet(limit_s - 0.1, ready=1, cold_start_s=cold_start_s), memory, SPEC)
    asleep, _ = decide(quiet(limit_s, ready=1, cold_start_s=cold_start_s), memory, SPEC)
    assert (still.target, still.reason) == (1, Reason.LINGER)
    assert (asleep.target, asleep.reason) == (0, Reason.IDLE)


def test_idle_time_never_passes_the_operators_bound() -> None:
    spec = replace(SPEC, idle_timeout_s=5.0)
    memory = Memory(target=4, busy_at_s=0.0, at_s=0.0, peaks=((0.0, 4),))
    decision, memory = decide(quiet(5.0, ready=4), memory, spec)
    assert (decision.target, decision.reason) == (0, Reason.IDLE)
    assert memory.peaks == ()


def test_requests_that_came_and_went_wake_nothing() -> None:
    decision, memory = decide(quiet(9.0, arrivals=3), first_memory(0.0, SPEC), SPEC)
    assert decision.target == 0
    assert memory.busy_at_s == 9.0


def test_fading_arrivals_do_not_keep_a_model_awake() -> None:
    memory = Memory(target=1, busy_at_s=0.0, at_s=0.0, prefill=(1e-3,) * 4, arrived=1.0)
    decision, _ = decide(quiet(300.0, ready=1), memory, SPEC)
    assert decision.target == 0


@pytest.mark.parametrize(
    "seen",
    [
        quiet(1.0, queued=None), quiet(1.0, in_flight=None), quiet(1.0, queued=-1),
        quiet(1.0, oldest_wait_s=math.nan), quiet(1.0, queued_tokens=math.inf),
        quiet(1.0, prefill_tokens=-5), quiet(1.0, arrivals=math.nan),
    ],
    ids=["no queue", "no flight", "negative", "nan wait", "infinite", "negative tokens", "nan"],
)  # fmt: skip
def test_report_that_cannot_be_true_holds_the_target(seen: Snapshot) -> None:
    memory = Memory(target=7, busy_at_s=0.0)
    decision, after = decide(seen, memory, SPEC)
    assert (decision.target, decision.reason) == (7, Reason.SIGNAL_MISSING)
    assert after == memory


def test_capacity_that_is_not_there_is_asked_for_with_growing_pauses() -> None:
    memory, asked = first_memory(0.0, SPEC), []
    for tick in range(240):
        seen = quiet(
            tick * TICK_S, ready=1, in_flight=128, queued=500, queued_tokens=500_000, available=1
        )
        decision, memory = decide(seen, memory, SPEC)
        assert decision.reason is Reason.NO_CAPACITY
        if decision.target > 2:
            asked.append(seen.at_s)
        else:
            assert decision.target == 2
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_first_engine_is_asked_for_even_where_no_host_is_free() -> None:
    memory = replace(first_memory(0.0, SPEC), refused_at_s=0.0, backoff_s=30.0)
    decision, _ = decide(quiet(1.0, queued=500, queued_tokens=500_000, available=0), memory, SPEC)
    assert decision.target == 1


def test_clock_that_was_set_back_keeps_nothing_alive() -> None:
    memory = Memory(target=3, busy_at_s=1e6, at_s=1e6, peaks=((1e6, 3),))
    decision, memory = decide(quiet(10.0, ready=3), memory, SPEC)
    assert decision.idle_s == 0.0
    decision, _ = decide(quiet(10.0 + 300.0, ready=3), memory, SPEC)
    assert decision.target == 0


@pytest.mark.parametrize(
    ("least", "most", "target"), [(2, 1, 1), (0, 0, 0), (3, 5, 5)], ids=["crossed", "none", "range"]
)
def test_bounds_hold_even_where_they_contradict(least: int, most: int, target: int) -> None:
    spec = replace(SPEC, min=least, max=most)
    decision, _ = decide(quiet(0.0, queued=999, queued_tokens=10**6), first_memory(0.0, spec), spec)
    assert decision.target == target


def test_without_capacity_awake_means_max() -> None:
    spec = replace(SPEC, max=2)
    decision, _ = decide(quiet(0.0, queued=1, capacity=None), first_memory(0.0, spec), spec)
    assert (decision.target, decision.reason) == (2, Reason.DEMAND)


@pytest.mark.parametrize("per_tick", [1, 7, 16, 40])
def test_steady_load_never_flaps(per_tick: int) -> None:
    # Ten minutes; in flight by Little's law at 4 s a request.
    targets = [d.target for d in run_steadily(per_tick, 2400, per_tick * 16)]
    changes = [after - before for before, after in pairwise(targets) if after != before]
    # The way up in the first seconds, then at most one step as the mean completion settles.
    assert all(change > 0 for change in changes)
    assert len({*targets[240:]}) <= 2


loads = st.fixed_dictionaries(
    {
        "queued": st.integers(0, 5000),
        "in_flight": st.integers(0, 5000),
        "arrivals": st.integers(0, 5000),
        "arrived_tokens": st.integers(0, 10**7),
        "queued_tokens": st.integers(0, 10**7),
        "prefill_tokens": st.integers(0, 10**7),
        "oldest_wait_s": st.floats(0, 100),
    }
)
starts = st.sampled_from([0.3, 0.5, 1.0, 2.0, 15.0, 60.0])
memories = st.builds(
    Memory,
    target=st.integers(0, 64),
    busy_at_s=st.floats(0, 100),
    at_s=st.just(100.0),
    prefill=st.tuples(*[st.floats(0, 50)] * 4),
    arrived=st.floats(0, 1000),
    peaks=st.just(((60.0, 12), (90.0, 5))),
    stretch=st.floats(-1.5, 3.0),
)


@given(loads, starts, memories, st.integers(0, 70), st.integers(0, 70))
def test_target_stays_within_bounds(
    load: dict[str, float], start_s: float, memory: Memory, least: int, most: int
) -> None:
    spec = replace(SPEC, min=least, max=most)
    decision, after = decide(quiet(100.25, cold_start_s=start_s, **load), memory, spec)
    assert 0 <= decision.target <= most
    assert decision.target >= min(least, most)
    assert after.target == decision.target


@given(loads, loads, starts, memories, st.integers(0, 20))
def test_more_load_never_wants_fewer(
    load: dict[str, float], more: dict[str, float], start_s: float, memory: Memory, ready: int
) -> None:
    less, _ = decide(quiet(100.25, ready=ready, cold_start_s=start_s, **load), memory, SPEC)
    sum_of_both = {name: value + more[name] for name, value in load.items()}
    greater, _ = decide(
        quiet(100.25, ready=ready, cold_start_s=start_s, **sum_of_both), memory, SPEC
    )
    assert greater.target >= less.target


@given(
    st.lists(loads, min_size=1, max_size=6).flatmap(
        lambda r: st.tuples(st.just(r), st.permutations(r))
    )
)
def test_order_of_gateways_reports_means_nothing(
    reports: tuple[list[dict[str, float]], list[dict[str, float]]],
) -> None:
    def summed(parts: list[dict[str, float]]) -> Snapshot:
        total = {name: sum(int(p[name]) for p in parts) for name in parts[0]}
        total["oldest_wait_s"] = max(p["oldest_wait_s"] for p in parts)  # type: ignore[assignment]
        return quiet(1.0, **total)

    memory = first_memory(0.0, SPEC)
    assert decide(summed(reports[0]), memory, SPEC) == decide(summed(reports[1]), memory, SPEC)


def test_objective_that_no_engine_can_keep_buys_no_engine() -> None:
    slow = Capacity(slots=8, prefill_tps=1000.0, step_s=0.2, step_per_seq_s=0.01)
    spec = replace(SPEC, ttft_s=0.001, tpot_s=0.05)
    seen = quiet(1.0, ready=1, in_flight=4, arrivals=1, arrived_tokens=10, capacity=slow)
    assert decide(seen, Memory(1, 0.0), spec)[0].target == 1


def test_full_kv_caches_ask_for_engines_before_the_slots_do() -> None:
    full = (EngineLoad(running=4, waiting=0, kv_use=0.99),) * 2
    seen = quiet(1.0, ready=2, in_flight=8, engines=full)
    decision, _ = decide(seen, Memory(2, 0.0), SPEC)
    assert (decision.target, decision.reason) == (3, Reason.SLOTS)
    nonsense = (EngineLoad(running=4, waiting=0, kv_use=1e9),)
    assert decide(replace(seen, engines=nonsense), Memory(2, 0.0), SPEC)[0].needed <= 2


def test_engines_of_a_model_whose_capacity_gets_known_are_held_for_a_window() -> None:
    memory = first_memory(0.0, SPEC)
    spec = replace(SPEC, max=4)
    blind = quiet(1.0, queued=1, arrivals=1, capacity=None)
    decision, memory = decide(blind, memory, spec)
    assert decision.target == 4
    decision, memory = decide(quiet(2.0, ready=4, in_flight=1), memory, spec)
    assert (decision.target, decision.reason, decision.needed) == (4, Reason.HOLD, 1)
    decision, memory = decide(quiet(40.0, ready=4, in_flight=1), memory, spec)
    assert decision.target == 1
