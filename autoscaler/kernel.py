"""The simulator's inner loop: requests, a gateway's line, and engines that run steps.

One engine step costs, as continuous batching with chunked prefill does,

    chunk / prefill_tps  +  (step_s + step_per_seq_s * decoding, if anything decodes)

where `chunk` prompt tokens are processed and each of `decoding` sequences gets one token. A prompt
that is completed in a step has its first token at the end of it. Prompts are processed in the
order of their dispatch, at most `chunk_tokens` tokens a step, decoding sequences counted. A
sequence holds prompt + output tokens of KV from the start of its prefill to its end: engines do
not preempt here, they admit a little later. What the way outside the engine takes (door, HTTP,
tokenising, the first chunk) delays a request's tokens and nothing else.

Engines that share cores (not those that have an accelerator each) slow each other down: a step
and the way outside take `crowding` times longer for each other engine that works or starts then.

The gateway keeps one line, first come first served. The head goes to the ready engine with the
least outstanding work, if that has a free slot and less than `ahead_tokens` prompt tokens still to
process; otherwise it waits at the gateway, where a new engine can take it.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autoscaler.compiled import compiled

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FREE, STARTING, READY, DRAINING = 0, 1, 2, 3
"""Phases of an engine's place."""

# Indices of Fleet.totals.
(
    NEXT,
    HEAD,
    ARRIVED,
    ARRIVED_TOKENS,
    FINISHED,
    FINISHED_TOKENS,
    FIRST_TOKENS,
    MISSED,
    QUEUED_TOKENS,
    USED,  # places from the first on in which an engine may be
) = range(10)
COUNTS = 10


class Rates(NamedTuple):
    """An engine's parameters, and the gateway's."""

    slots: int
    chunk_tokens: int
    kv_tokens: int
    ahead_tokens: int
    prefill_tps: float
    step_s: float
    step_per_seq_s: float
    ttft_s: float  # a first token that comes later than this after the arrival is a miss
    tpot_s: float  # and so are further tokens that take longer than this on average
    crowding: float = 0.0


class Fleet(NamedTuple):
    """All state; r: of each request, e: of each engine's place, es: of each place and slot."""

    arrival_s: Floats  # r
    prompt: Ints  # r
    output: Ints  # r
    way_s: Floats  # r, outside the engine
    first_s: Floats  # r, NaN before
    done_s: Floats  # r, NaN before
    totals: Ints  # COUNTS running totals and positions
    phase: Ints  # e
    ready_s: Floats  # e, when a starting engine will be ready
    freed_s: Floats  # e, when a draining engine became empty
    step_end_s: Floats  # e, infinite while idle
    chunk: Ints  # e, prompt tokens of the running step
    steps: Ints  # e, steps so far
    decoding: Ints  # e
    next_finish: Ints  # e, step at which the first decoding sequence ends
    pending: Ints  # e, prompt tokens not yet processed
    kv: Ints  # e, tokens reserved
    flight: Ints  # e, requests in the engine
    wait_head: Ints  # e, position in the ring of requests that still have prompt tokens
    wait_len: Ints  # e
    head_done: Ints  # e, tokens of the ring's head already processed
    admitted: Ints  # e, ring entries whose KV is reserved, from the head on
    ring: Ints  # es, requests
    seat: Ints  # es, decoding requests, dense
    seat_end: Ints  # es, step at which each ends


def new_fleet(
    arrival_s: Floats, prompt: Ints, output: Ints, way_s: Floats, places: int, slots: int
) -> Fleet:
    """An empty fleet before the first arrival."""

    def ints() -> Ints:
        return np.zeros(places, np.int64)

    return Fleet(
        arrival_s, prompt, output, way_s,
        np.full(len(arrival_s), np.nan), np.full(len(arrival_s), np.nan),
        np.zeros(COUNTS, np.int64),
        ints(), np.full(places, np.inf), np.full(places, np.nan), np.full(places, np.inf),
        ints(), ints(), ints(), ints(), ints(), ints(), ints(), ints(), ints(), ints(), ints(),
        np.zeros((places, slots), np.int64),
        np.zeros((places, slots), np.int64),
        np.zeros((places, slots), np.int64),
    )  # fmt: skip


@compiled
def _others_at_work(f: Fleet, e: int) -> int:
    """Engines beside this one that run a step, or start."""
    found = 0
    for other in range(f.totals[USED]):
        if other != e and (f.phase[other] == STARTING or f.step_end_s[other] < np.inf):
            found += 1
    return found


@compiled
def _start_step(f: Fleet, rates: Rates, e: int, now_s: float) -> None:
    """Plans the next step of an engine: admits prompts, takes a chunk, sets the step's end."""
    room = max(1, rates.chunk_tokens - f.decoding[e])
    chunk = 0
    for i in range(f.wait_len[e]):
        r = f.ring[e, (f.wait_head[e] + i) % rates.slots]
        if i >= f.admitted[e]:
            need = f.prompt[r] + f.output[r]
            if f.kv[e] + need > rates.kv_tokens and f.kv[e] > 0:
                break
            f.kv[e] += need
            f.admitted[e] += 1
        left = f.prompt[r] - (f.head_done[e] if i == 0 else 0)
        take = min(left, room - chunk)
        chunk += take
        if chunk >= room:
            break
    f.chunk[e] = chunk
    if chunk == 0 and f.decoding[e] == 0:
        f.step_end_s[e] = np.inf
        return
    took_s = chunk / rates.prefill_tps
    if f.decoding[e] > 0:
        took_s += rates.step_s + rates.step_per_seq_s * f.decoding[e]
    if rates.crowding > 0.0:
        took_s *= 1.0 + rates.crowding * _others_at_work(f, e)
    f.step_end_s[e] = now_s + took_s


@compiled
def _finish(f: Fleet, rates: Rates, e: int, r: int, now_s: float) -> None:
    f.done_s[r] = now_s + f.way_s[r]
    f.kv[e] -= f.prompt[r] + f.output[r]
    f.flight[e] -= 1
    f.totals[FINISHED] += 1
    f.totals[FINISHED_TOKENS] += f.output[r]
    was_in_time = f.first_s[r] - f.arrival_s[r] <= rates.ttft_s
    if was_in_time and f.done_s[r] - f.first_s[r] > rates.tpot_s * (f.output[r] - 1):
        f.totals[MISSED] += 1


@compiled
def _end_step(f: Fleet, rates: Rates, e: int, now_s: float) -> None:
    """Gives the tokens of a step out: one to each decoding sequence, a first to each new one."""
    f.steps[e] += 1
    if f.decoding[e] > 0 and f.steps[e] >= f.next_finish[e]:
        i = 0
        soonest = np.int64(1 << 62)
        while i < f.decoding[e]:
            if f.seat_end[e, i] <= f.steps[e]:
                _finish(f, rates, e, f.seat[e, i], now_s)
                f.decoding[e] -= 1
                f.seat[e, i] = f.seat[e, f.decoding[e]]
                f.seat_end[e, i] = f.seat_end[e, f.decoding[e]]
            else:
                soonest = min(soonest, f.seat_end[e, i])
                i += 1
        f.next_finish[e] = soonest
    chunk = f.chunk[e]
    f.pending[e] -= chunk
    while chunk > 0:
        r = f.ring[e, f.wait_head[e]]
        left = f.prompt[r] - f.head_done[e]
        if chunk < left:
            f.head_done[e] += chunk
            break
        chunk -= left
        f.head_done[e] = 0
        f.wait_head[e] = (f.wait_head[e] + 1) % rates.slots
        f.wait_len[e] -= 1
        f.admitted[e] -= 1
        if rates.crowding > 0.0:
            f.way_s[r] *= 1.0 + rates.crowding * _others_at_work(f, e)
        f.first_s[r] = now_s + f.way_s[r]
        f.totals[FIRST_TOKENS] += 1
        if f.first_s[r] - f.arrival_s[r] > rates.ttft_s:
            f.totals[MISSED] += 1
        if f.output[r] <= 1:
            _finish(f, rates, e, r, now_s)
            continue
        seat = f.decoding[e]
        f.seat[e, seat] = r
        f.seat_end[e, seat] = f.steps[e] + f.output[r] - 1
        if seat == 0 or f.seat_end[e, seat] < f.next_finish[e]:
            f.next_finish[e] = f.seat_end[e, seat]
        f.decoding[e] += 1


@compiled
def _dispatch(f: Fleet, rates: Rates, now_s: float) -> None:
    """Sends the head of the gateway's line on as long as an engine takes it."""
    while f.totals[HEAD] < f.totals[NEXT]:
        best = -1
        least = np.inf
        for e in range(f.totals[USED]):
            if (
                f.phase[e] == READY
                and f.flight[e] < rates.slots
                and f.pending[e] < rates.ahead_tokens
            ):
                load = f.flight[e] / rates.slots + f.pending[e] / rates.ahead_tokens
                if load < least:
                    best, least = e, load
        if best < 0:
            return
        r = f.totals[HEAD]
        f.totals[HEAD] += 1
        f.totals[QUEUED_TOKENS] -= f.prompt[r]
        f.ring[best, (f.wait_head[best] + f.wait_len[best]) % rates.slots] = r
        f.wait_len[best] += 1
        f.pending[best] += f.prompt[r]
        f.flight[best] += 1
        if f.step_end_s[best] == np.inf:
            _start_step(f, rates, best, now_s)


@compiled
def advance(f: Fleet, rates: Rates, now_s: float, until_s: float, stop_on_arrival: bool) -> float:
    """Runs the fleet up to a time, and says how far it came.

    Args:
        stop_on_arrival: Return at the first arrival: a sleeping model decides at once.
    """
    while True:
        at_s, which = until_s, -1
        for e in range(f.totals[USED]):
            if f.step_end_s[e] < at_s:
                at_s, which = f.step_end_s[e], e
            if f.phase[e] == STARTING and f.ready_s[e] < at_s:
                at_s, which = f.ready_s[e], e
        following = f.totals[NEXT]
        if following < len(f.arrival_s) and f.arrival_s[following] < at_s:
            at_s = f.arrival_s[following]
            f.totals[NEXT] += 1
            f.totals[ARRIVED] += 1
            f.totals[ARRIVED_TOKENS] += f.prompt[following]
            f.totals[QUEUED_TOKENS] += f.prompt[following]
            _dispatch(f, rates, at_s)
            if stop_on_arrival:
                return float(at_s)
        elif which < 0:
            return until_s
        elif f.phase[which] == STARTING:
            f.phase[which] = READY
            f.ready_s[which] = np.inf
            # Not idle while the line is read, so that all it gets goes into one step.
            f.step_end_s[which] = at_s
            _dispatch(f, rates, at_s)
            _start_step(f, rates, which, at_s)
        else:
            _end_step(f, rates, which, at_s)
            if f.phase[which] == DRAINING and f.flight[which] == 0:
                f.phase[which] = FREE
                f.freed_s[which] = at_s
                f.step_end_s[which] = np.inf
            else:
                _dispatch(f, rates, at_s)
                _start_step(f, rates, which, at_s)
