"""The policy without a measured capacity, and as a story, with the reason beside each target."""

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy import decide, first_memory
from autoscaler.snapshot import Memory, Reason, Snapshot, Spec

SPEC = Spec(min=0, max=2, idle_timeout_s=10.0)


def seen(
    at_s: float, queued: int | None = 0, in_flight: int | None = 0, arrivals: int = 0
) -> Snapshot:
    return Snapshot(
        at_s=at_s, ready=0, starting=0, queued=queued, in_flight=in_flight, arrivals=arrivals
    )


def test_policy_wakes_lingers_and_sleeps() -> None:
    memory = first_memory(0.0, SPEC)
    story = [
        (seen(1.0), 0, Reason.LINGER),  # nobody ever asked
        (seen(2.0, queued=1), 2, Reason.DEMAND),  # a request waits: all engines
        (seen(3.0, in_flight=1), 2, Reason.DEMAND),  # it runs
        (seen(12.9), 2, Reason.LINGER),  # idle, but not for long
        (seen(13.0), 0, Reason.IDLE),  # ten seconds after the last request
        (seen(14.0, arrivals=1), 0, Reason.LINGER),  # came and left before anybody looked
    ]
    for snapshot, target, reason in story:
        decision, memory = decide(snapshot, memory, SPEC)
        assert (decision.target, decision.reason) == (target, reason), snapshot


def test_policy_counts_idle_time_from_the_last_arrival() -> None:
    memory = Memory(target=2, busy_at_s=0.0)
    decision, memory = decide(seen(9.0, arrivals=1), memory, SPEC)
    assert decision.target == 2
    assert decide(seen(18.0), memory, SPEC)[0].target == 2
    assert decide(seen(19.0), memory, SPEC)[0].target == 0


def test_policy_holds_when_nobody_can_tell() -> None:
    decision, memory = decide(seen(99.0, queued=None), Memory(2, 0.0), SPEC)
    assert (decision.target, decision.reason) == (2, Reason.SIGNAL_MISSING)
    assert memory.target == 2


def test_policy_follows_new_bounds_at_once() -> None:
    spec = Spec(min=1, max=1, idle_timeout_s=10.0)
    assert decide(seen(1.0, queued=None), Memory(0, 0.0), spec)[0].target == 1
    assert decide(seen(1.0, queued=5), Memory(4, 0.0), spec)[0].target == 1


counts = st.one_of(st.none(), st.integers(0, 1000))
specs = st.tuples(st.integers(0, 5), st.integers(1, 5), st.floats(0.5, 100)).map(
    lambda t: Spec(min=min(t[:2]), max=max(t[:2]), idle_timeout_s=t[2])
)


@given(
    specs,
    st.integers(0, 9),
    st.lists(st.tuples(st.floats(0, 60), counts, counts, st.integers(0, 3)), max_size=20),
)
def test_policy_stays_within_bounds(
    spec: Spec, start: int, steps: list[tuple[float, int | None, int | None, int]]
) -> None:
    memory, at_s = Memory(start, 0.0), 0.0
    for wait_s, queued, in_flight, arrivals in steps:
        at_s += wait_s
        decision, memory = decide(seen(at_s, queued, in_flight, arrivals), memory, spec)
        assert spec.min <= decision.target <= spec.max


@given(specs, st.integers(0, 100), st.integers(0, 100), st.floats(0, 100))
def test_policy_never_wants_fewer_for_more_load(
    spec: Spec, queued: int, more: int, at_s: float
) -> None:
    memory = first_memory(0.0, spec)
    less = decide(seen(at_s, queued), memory, spec)[0].target
    assert decide(seen(at_s, queued + more), memory, spec)[0].target >= less


@given(specs, st.integers(1, 100))
def test_policy_does_not_flap_under_steady_load(spec: Spec, in_flight: int) -> None:
    memory = first_memory(0.0, spec)
    targets = set()
    for tick in range(20):
        decision, memory = decide(seen(tick * 0.25, in_flight=in_flight), memory, spec)
        targets.add(decision.target)
    assert targets == {spec.max}
