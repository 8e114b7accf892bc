"""What the charts show of a run: histograms, and quantities over time. Pure."""

import math
from collections.abc import Sequence

from loadtests.measure import Outcome
from loadtests.summary import percentile

BINS = 40
POINTS = 120

Points = list[tuple[float, float]]
"""Seconds since the start of the run, and a value."""


def bins(values: Sequence[float]) -> tuple[list[float], list[int], int]:
    """Edges, counts, and how many values lie above the last edge: a long tail is cut off at one and
    a half times the p99, so that the rest can be seen. There is at least one value."""
    ordered = sorted(values)
    high = min(ordered[-1], 1.5 * percentile(ordered, 99))
    low = ordered[0] if ordered[0] > high / 3 else 0.0
    if high <= low:
        low, high = low * 0.9, (low or 1.0) * 1.1
    count = max(8, min(BINS, 2 * math.isqrt(len(ordered))))
    width = (high - low) / count
    counts = [0] * count
    above = 0
    for value in ordered:
        if value > high:
            above += 1
        else:
            counts[min(int((value - low) / width), count - 1)] += 1
    return [low + number * width for number in range(count + 1)], counts, above


def in_flight(outcomes: Sequence[Outcome], started_s: float, duration_s: float) -> Points:
    """The requests at work, as many as there were at most in each step of time."""
    changes = []
    for outcome in outcomes:
        changes.append((outcome.sent_s - started_s, 1))
        changes.append((outcome.sent_s - started_s + (outcome.e2e_s or 0.0), -1))
    changes.sort()
    step_s = duration_s / POINTS
    points: Points = []
    now = at = 0
    for number in range(POINTS):
        most = now
        while at < len(changes) and changes[at][0] < (number + 1) * step_s:
            now += changes[at][1]
            most = max(most, now)
            at += 1
        points.append((number * step_s, float(most)))
    return [*points, (duration_s, float(now))]


def output_rate(outcomes: Sequence[Outcome], started_s: float, duration_s: float) -> Points:
    """Output tokens a second; each chunk of a reply counts for as many tokens as the others."""
    steps = max(2, min(POINTS, int(duration_s)))
    step_s = duration_s / steps
    tokens = [0.0] * steps
    for outcome in outcomes:
        if outcome.ttft_s is None or not outcome.chunks:
            continue
        each = (outcome.output_tokens or outcome.chunks) / outcome.chunks
        at_s = outcome.sent_s + outcome.ttft_s - started_s
        for gap_s in (0.0, *outcome.gaps_s):
            at_s += gap_s
            tokens[min(int(at_s / step_s), steps - 1)] += each
    return [((number + 0.5) * step_s, count / step_s) for number, count in enumerate(tokens)]
