"""Decides how many engines a model shall have. Pure: no clock, no client, no randomness."""

from autoscaler.snapshot import Decision, Memory, Reason, Snapshot, Spec


def first_memory(at_s: float, spec: Spec) -> Memory:
    """What the policy knows of a model that it sees for the first time."""
    return Memory(target=spec.min, busy_at_s=at_s)


def decide(seen: Snapshot, memory: Memory, spec: Spec) -> tuple[Decision, Memory]:
    """A fixed number of engines while somebody asks, `min` after the idle time.

    Awake means `max` engines; asleep means `min`. A missing signal holds the last target,
    within the bounds. Requests that came and went between two decisions wake nothing, but the
    idle time starts anew.
    """
    busy_at_s = memory.busy_at_s
    if seen.queued is None or seen.in_flight is None:
        target, reason = memory.target, Reason.SIGNAL_MISSING
    elif seen.queued + seen.in_flight > 0:
        target, reason, busy_at_s = spec.max, Reason.DEMAND, seen.at_s
    elif seen.arrivals > 0:
        target, reason, busy_at_s = memory.target, Reason.LINGER, seen.at_s
    elif seen.at_s - busy_at_s < spec.idle_timeout_s:
        target, reason = memory.target, Reason.LINGER
    else:
        target, reason = spec.min, Reason.IDLE
    target = min(max(target, spec.min), spec.max)
    decision = Decision(target=target, reason=reason, idle_s=max(0.0, seen.at_s - busy_at_s))
    return decision, Memory(target=target, busy_at_s=busy_at_s)
