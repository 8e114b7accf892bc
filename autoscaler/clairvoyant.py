"""A scaler that knows the whole trace beforehand: a reference for the others, not a bound."""

import math

import numpy as np

from autoscaler.kernel import Floats
from autoscaler.snapshot import Snapshot
from autoscaler.traces import Trace


class Clairvoyant:
    """Knows all arrivals and lengths beforehand; a reference, not a bound.

    The need at t is the largest, over spans w, of the prefill that arrives in [t, t + w) over
    w + drain_s, and the decoding of the same arrivals over 8 s, at `busy` use of an engine. It
    asks a cold start early, and keeps engines over gaps shorter than keep_s, where a stop and a
    start would cost more.
    """

    def __init__(
        self, trace: Trace, prefill_tps: float, token_s: float, start_s: float, *,
        drain_s: float, busy: float, keep_s: float, most: int,
    ) -> None:  # fmt: skip
        self.interval_s = 0.25
        bins = int(trace.duration_s / 0.25) + 2
        at = (trace.arrival_s / 0.25).astype(np.int64)
        prefill = np.bincount(at, trace.prompt / prefill_tps, bins).astype(np.float64)
        decode = np.bincount(at, trace.output * token_s, bins).astype(np.float64)
        curve = np.zeros(bins)
        for width in (1, 2, 4, 8, 16, 32, 64, 128):
            curve = np.maximum(curve, _ahead(prefill, width) / (width * 0.25 + drain_s))
        need = np.ceil((curve + _behind(decode, 32) / 8.0) / busy - 0.05)
        # As far ahead as a start takes; over gaps, until the need comes back.
        reach = max(1, math.ceil((start_s + 0.5) / 0.25))
        keep = max(1, math.ceil(keep_s / 0.25))
        just_after = _highest(need[::-1], 4)[::-1]
        held = _closed(_highest(need, reach), keep)
        self._plan = np.minimum(np.maximum(held, just_after), most).astype(np.int64)

    def target(self, seen: Snapshot) -> int:
        """The plan at this time; one engine for what is left after the last arrival."""
        i = int(seen.at_s / 0.25)
        planned = int(self._plan[i]) if i < len(self._plan) else 0
        return max(planned, 1 if (seen.queued or 0) + (seen.in_flight or 0) else 0)


def _ahead(values: Floats, width: int) -> Floats:
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.minimum(np.arange(len(values)) + width, len(values))
    found: Floats = total[ends] - total[: len(values)]
    return found


def _behind(values: Floats, width: int) -> Floats:
    return _ahead(values[::-1], width)[::-1]


def _highest(values: Floats, width: int) -> Floats:
    """The maximum of each value and the `width` that follow."""
    padded = np.concatenate([values, np.zeros(width)])
    found: Floats = np.lib.stride_tricks.sliding_window_view(padded, width + 1).max(axis=1)
    return found


def _closed(values: Floats, width: int) -> Floats:
    """Fills valleys that are narrower than `width` (a morphological closing)."""
    widened = _highest(values[::-1], width)[::-1]
    padded = np.concatenate([widened, np.full(width, np.inf)])
    found: Floats = np.lib.stride_tricks.sliding_window_view(padded, width + 1).min(axis=1)
    return found
