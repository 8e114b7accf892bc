"""What the policy may believe of its inputs, and what it may hope for. Pure."""

from dataclasses import replace
from math import inf

from autoscaler.capacity import Capacity
from autoscaler.snapshot import Memory, Snapshot, Spec


def attainable(spec: Spec, one: Capacity) -> Spec:
    """The spec with objectives that an engine can keep: one that none can keep buys no engine.

    A TTFT below the floor becomes the floor; a TPOT below it is given up.
    """
    ttft_s = max(spec.ttft_s, one.floor_ttft_s())
    tpot_s = spec.tpot_s if one.floor_tpot_s() <= spec.tpot_s else inf
    if (ttft_s, tpot_s) == (spec.ttft_s, spec.tpot_s):
        return spec
    return replace(spec, ttft_s=ttft_s, tpot_s=tpot_s)


def is_missing(seen: Snapshot) -> bool:
    """A report that is not there, or cannot be true, is no signal."""
    if seen.queued is None or seen.in_flight is None:
        return True
    numbers = (
        seen.queued, seen.in_flight, seen.arrivals, seen.arrived_tokens or 0,
        seen.queued_tokens or 0, seen.prefill_tokens, seen.oldest_wait_s, seen.finished,
        seen.finished_tokens, seen.missed,
    )  # fmt: skip
    # A NaN compares false with everything, and makes the sum one.
    return not (min(numbers) >= 0 and sum(numbers) < inf)


def not_from_the_future(memory: Memory, at_s: float) -> Memory:
    """A clock that was set back must not keep a peak or the idle time alive."""
    if memory.busy_at_s <= at_s and (memory.at_s is None or memory.at_s <= at_s):
        return memory
    return replace(
        memory,
        busy_at_s=min(memory.busy_at_s, at_s),
        at_s=None if memory.at_s is None else min(memory.at_s, at_s),
        peaks=tuple((min(t, at_s), n) for t, n in memory.peaks),
        refused_at_s=None if memory.refused_at_s is None else min(memory.refused_at_s, at_s),
    )
