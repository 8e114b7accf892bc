"""Decides how many engines a model shall have. Pure: no clock, no client, no randomness.

*Up, at once*, to what the largest of three needs asks:

- *arrivals*: the prompts that came must be through within the time T that TTFT leaves. Over any
  span w that takes A(w) / (w + T) engines, where A(w) is the arrived prefill in engine seconds:
  the delay bound of an arrival curve (Le Boudec and Thiran, "Network Calculus", 2001, section
  1.4). A(w) is kept as sums that fade over w = TAUS_S, so that nothing is stored per request. On
  top come the engines that decode the completions of the same arrivals, at the mean length seen.
- *backlog*: what waits now, and what will still come during a cold start, over the time left.
- *slots*: requests in flight and waiting over the slots of an engine, by Little's law the
  concurrency that the load itself makes; or the KV caches in use, where they fill up first.

*Down, late*: only as far as the largest need within a window. How long a peak should hold is not
known beforehand, so it is learned: every missed request makes the window longer, every other one
a little shorter, in steps that shrink with the evidence and balance at AIM of the misses that the
SLO allows (the update of Gibbs and Candes, "Adaptive Conformal Inference", NeurIPS 2021, on the
logarithm of the window). Where a cold start fits into TTFT, the first window is short.

*To zero* after idle_timeout_s, or earlier where a start is hidden in TTFT: then being wrong costs
one start, and STARTS_PER_IDLE starts are worth as much as the wait (ski rental).
"""

from dataclasses import replace
from math import ceil, exp, log
from typing import NamedTuple

from autoscaler.capacity import Capacity
from autoscaler.signals import attainable, is_missing, not_from_the_future
from autoscaler.snapshot import Decision, Memory, Reason, Snapshot, Spec

TAUS_S = (0.5, 2.0, 8.0, 32.0)
ARRIVALS_S = 8.0  # fading of the rate of requests
LENGTHS_S = 600.0  # fading of the mean completion
JUDGED_S = 3600.0  # fading of the evidence on the window
FIRST_OUTPUT = (5.0, 500.0)  # requests and their tokens, until real ones ended
ASSUMED_PROMPT = 512  # tokens, where gateways do not count them
SLACK = 0.05  # engines; less than this above a whole number starts no further one
SLOT_SHARE = 0.9  # of the slots that steady load may fill
KV_SHARE = 0.9  # of the KV cache; beyond it engines preempt what they run
DOWN_MARGIN = 0.12  # above the load, before an engine may go: no turn at every ripple
TTFT_MARGIN = 0.25  # of ttft_s, for reports, dispatch and the prompt's own prefill
WINDOW_MIN_S, WINDOW_MAX_S = 5.0, 900.0
HIDDEN_WINDOW_STARTS, HIDDEN_WINDOW_MAX_S = 20.0, 30.0
OPEN_WINDOW_S = 30.0  # first window where a start does not fit into TTFT
AIM = 0.6  # of the allowed misses
GAIN = 2.0  # log of the window's length, for one SLO's worth of misses
EVIDENCE_MIN = 1000.0  # requests
STARTS_PER_IDLE = 60.0
BACKOFF_S, BACKOFF_MAX_S = 1.0, 30.0


def first_memory(at_s: float, spec: Spec) -> Memory:
    """What the policy knows of a model that it sees for the first time."""
    return Memory(target=spec.min, busy_at_s=at_s)


def decide(seen: Snapshot, memory: Memory, spec: Spec) -> tuple[Decision, Memory]:
    """The target of one model, and what to remember for its next decision.

    A report that is missing, negative or not a number holds the target, within the bounds. With
    no capacity in the snapshot, awake means `max` engines and asleep `min`. Requests that came
    and went between two decisions wake nothing, but the idle time starts anew.
    """
    memory = not_from_the_future(memory, seen.at_s)
    if is_missing(seen):
        target = _bounded(memory.target, spec)
        idle_s = max(0.0, seen.at_s - memory.busy_at_s)
        decision = Decision(target, Reason.SIGNAL_MISSING, idle_s)
        return decision, replace(memory, target=target)
    queued, in_flight = seen.queued or 0, seen.in_flight or 0
    busy_at_s = seen.at_s if queued + in_flight + seen.arrivals > 0 else memory.busy_at_s
    if seen.capacity is None:
        return _decide_blindly(queued + in_flight, seen, busy_at_s, memory, spec)
    return _decide(seen, queued, in_flight, seen.capacity, busy_at_s, memory, spec)


def _decide_blindly(
    present: int, seen: Snapshot, busy_at_s: float, memory: Memory, spec: Spec
) -> tuple[Decision, Memory]:
    idle_s = seen.at_s - busy_at_s
    if present > 0:
        target, reason = spec.max, Reason.DEMAND
    elif seen.arrivals > 0 or idle_s < spec.idle_timeout_s:
        target, reason = memory.target, Reason.LINGER
    else:
        target, reason = spec.min, Reason.IDLE
    target = _bounded(target, spec)
    decision = Decision(target, reason, idle_s, idle_limit_s=spec.idle_timeout_s)
    # A peak like any other, for the moment at which the capacity gets known.
    peaks = _with_peak(memory.peaks, seen.at_s, target) if target else ()
    return decision, replace(
        memory, target=target, at_s=seen.at_s, busy_at_s=busy_at_s, peaks=peaks
    )


def _decide(
    seen: Snapshot,
    queued: int,
    in_flight: int,
    one: Capacity,
    busy_at_s: float,
    memory: Memory,
    spec: Spec,
) -> tuple[Decision, Memory]:
    spec = attainable(spec, one)
    start_s = max(0.0, seen.cold_start_s or 0.0)
    hidden = start_s <= (1 - 2 * TTFT_MARGIN) * spec.ttft_s
    window_s = _window_s(memory.stretch, start_s, hidden)
    idle_limit_s = spec.idle_timeout_s
    if hidden and seen.cold_start_s is not None:
        idle_limit_s = min(idle_limit_s, max(WINDOW_MIN_S, STARTS_PER_IDLE * start_s))
    load = _fade(seen, one, memory)
    by_arrivals, by_backlog, by_slots = _needs(
        seen, queued, in_flight, one, load, spec, start_s, hidden
    )
    needed = ceil(max(0.0, max(by_arrivals, by_backlog, by_slots) - SLACK))
    asleep = memory.target == 0 and seen.ready + seen.starting == 0
    if queued + in_flight > 0:
        needed = max(1, needed)
    elif asleep:
        needed = 0
    idle_s = seen.at_s - busy_at_s
    if idle_s >= idle_limit_s:
        peaks: tuple[tuple[float, int], ...] = ()
        target, reason = 0, Reason.IDLE
    else:
        # What the load needs with a margin holds what is there: one engine less has to keep it too.
        largest = max(by_arrivals, by_backlog, by_slots) * (1.0 + DOWN_MARGIN)
        kept = min(ceil(max(0.0, largest - SLACK)), memory.target)
        peaks = _with_peak(memory.peaks, seen.at_s, max(needed, kept if needed else 0))
        held = next(n for at_s, n in peaks if at_s >= seen.at_s - window_s)
        target = max(held, 0 if asleep and not needed else 1)
        reason = _reason(needed, held, idle_s, by_arrivals, by_backlog, by_slots)
    target = _bounded(target, spec)
    target, reason, refused_at_s, backoff_s = _within_reach(
        seen, target, reason, queued + in_flight, memory
    )
    decision = Decision(
        target, reason, idle_s, needed, by_arrivals, by_backlog, by_slots, window_s, idle_limit_s
    )
    stretch, judged = _learn_window(seen, memory, spec, start_s, hidden)
    return decision, Memory(
        target, busy_at_s, seen.at_s, *load, peaks, stretch, judged, refused_at_s, backoff_s
    )


class Load(NamedTuple):
    """The fading sums of Memory, brought up to a moment."""

    prefill: tuple[float, ...]
    arrived: float
    finished: float
    finished_tokens: float


def _fade(seen: Snapshot, one: Capacity, memory: Memory) -> Load:
    """Fades what is old and adds what is new."""
    passed_s = seen.at_s - memory.at_s if memory.at_s is not None else 0.0
    tokens = seen.arrived_tokens
    if tokens is None:
        tokens = seen.arrivals * ASSUMED_PROMPT
    came_s = tokens / one.prefill_tps
    before = memory.prefill or (0.0,) * len(TAUS_S)
    lengths = exp(-passed_s / LENGTHS_S)
    return Load(
        tuple([b * exp(-passed_s / tau) + came_s for b, tau in zip(before, TAUS_S, strict=True)]),
        memory.arrived * exp(-passed_s / ARRIVALS_S) + seen.arrivals,
        memory.finished * lengths + seen.finished,
        memory.finished_tokens * lengths + seen.finished_tokens,
    )


def _learn_window(
    seen: Snapshot, memory: Memory, spec: Spec, start_s: float, hidden: bool
) -> tuple[float, float]:
    """The window's stretch for the next decision, and the evidence behind it."""
    passed_s = seen.at_s - memory.at_s if memory.at_s is not None else 0.0
    judged = memory.judged * exp(-passed_s / JUDGED_S) + seen.arrivals
    allowed = max(1e-6, 1.0 - spec.attainment)
    step = GAIN * (seen.missed / allowed - AIM * seen.arrivals) / max(judged, EVIDENCE_MIN)
    first_s = _first_window_s(start_s, hidden)
    shortest_s = max(WINDOW_MIN_S, 0.0 if hidden else start_s)
    lowest = log(shortest_s / first_s)
    highest = max(lowest, log(WINDOW_MAX_S / first_s))
    return min(max(memory.stretch + step, lowest), highest), judged


def _needs(
    seen: Snapshot,
    queued: int,
    in_flight: int,
    one: Capacity,
    load: Load,
    spec: Spec,
    start_s: float,
    hidden: bool,
) -> tuple[float, float, float]:
    """Engines by arrivals, by backlog and by slots; more load never gives less of any."""
    busy = 1.0 - spec.headroom
    batch = min(one.batch_within(spec.tpot_s), busy * one.slots)
    requests, tokens = FIRST_OUTPUT
    output = (load.finished_tokens + tokens) / (load.finished + requests)
    margin_s = TTFT_MARGIN * spec.ttft_s
    drain_s = margin_s
    if hidden:
        drain_s = min(spec.ttft_s - margin_s - start_s, 2 * margin_s)
    if one.longest_step_s() > spec.tpot_s:
        # Prefill stalls decoding here: a completion can wait for so much of it and keep TPOT.
        spare_s = spec.tpot_s - one.step_s - one.step_per_seq_s * batch
        drain_s = min(drain_s, max(0.1, 0.25 * output * spare_s))
    decoding = load.arrived / ARRIVALS_S * output * one.token_s(batch)
    curve = max(
        sum_s / (tau_s + drain_s) for sum_s, tau_s in zip(load.prefill, TAUS_S, strict=True)
    )
    by_arrivals = (curve + decoding) / busy

    waiting = seen.queued_tokens if seen.queued_tokens is not None else queued * ASSUMED_PROMPT
    waiting_s = (waiting + seen.prefill_tokens) / one.prefill_tps
    # What outlasts TTFT anyway only has to be out of the way a quarter of a start later.
    slow_s = margin_s if hidden else max(margin_s, 0.25 * start_s)
    by_backlog = waiting_s / max(spec.ttft_s - seen.oldest_wait_s - start_s, slow_s)
    if not hidden and waiting_s > 0.1:
        steady = load.prefill[2] / TAUS_S[2] + decoding
        later_s = max(0.0, waiting_s + (steady - seen.ready) * start_s)
        by_backlog = max(by_backlog, steady / busy + later_s / slow_s)
    by_slots = (queued + in_flight) / (SLOT_SHARE * min(one.slots, one.batch_within(spec.tpot_s)))
    if seen.engines:
        in_use = sum([min(max(engine.kv_use, 0.0), 1.0) for engine in seen.engines])
        by_slots = max(by_slots, in_use / KV_SHARE)
    return by_arrivals, by_backlog, by_slots


def _reason(
    needed: int, held: int, idle_s: float, by_arrivals: float, by_backlog: float, by_slots: float
) -> Reason:
    if held > max(1, needed):
        return Reason.HOLD
    if needed == 0:
        return Reason.LINGER
    if needed == 1:
        return Reason.DEMAND if idle_s <= 0 else Reason.LINGER
    largest = max(by_arrivals, by_backlog, by_slots)
    if by_arrivals == largest:
        return Reason.ARRIVALS
    return Reason.BACKLOG if by_backlog == largest else Reason.SLOTS


def _within_reach(
    seen: Snapshot, target: int, reason: Reason, present: int, memory: Memory
) -> tuple[int, Reason, float | None, float]:
    """Asks for capacity that is not there only now and then: target, reason, refused at, backoff.

    The first engine is always asked for: another model's idle engine may give way to it.
    """
    if seen.available is None or target <= seen.ready + seen.starting + seen.available:
        return target, reason, None, 0.0
    since_s = memory.refused_at_s
    if since_s is None or seen.at_s - since_s >= memory.backoff_s:
        backoff_s = min(BACKOFF_MAX_S, max(BACKOFF_S, 2 * memory.backoff_s))
        return target, Reason.NO_CAPACITY, seen.at_s, backoff_s
    reach = max(seen.ready + seen.starting + max(0, seen.available), 1 if present else 0)
    return min(reach, target), Reason.NO_CAPACITY, since_s, memory.backoff_s


def _with_peak(
    peaks: tuple[tuple[float, int], ...], at_s: float, needed: int
) -> tuple[tuple[float, int], ...]:
    """The maxima of the last WINDOW_MAX_S, newest last, with a new need."""
    kept = [peak for peak in peaks if peak[1] > needed and peak[0] >= at_s - WINDOW_MAX_S]
    return (*kept, (at_s, needed))


def _first_window_s(start_s: float, hidden: bool) -> float:
    if hidden:
        return min(HIDDEN_WINDOW_MAX_S, max(WINDOW_MIN_S, HIDDEN_WINDOW_STARTS * start_s))
    return max(OPEN_WINDOW_S, 2 * start_s)


def _window_s(stretch: float, start_s: float, hidden: bool) -> float:
    return _first_window_s(start_s, hidden) * exp(stretch)


def _bounded(target: int, spec: Spec) -> int:
    """Within the bounds; where they contradict each other, `max` wins."""
    return max(0, min(max(target, spec.min), spec.max))
