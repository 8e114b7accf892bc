"""Shows what policies made of a scenario: JSON, a table, a picture. Computes nothing of its own."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from autoscaler.frontier import Point
from autoscaler.simulate import Outcome, Scenario, work_bound_hours

BIN_S = 10.0
"""Of the picture's sums over time."""


def as_json(scenario: Scenario, outcomes: Sequence[Outcome]) -> str:
    """The comparison in the shape that `penstock simulate --output json` promises."""
    return json.dumps(
        {
            **_head(scenario),
            "policies": [
                {
                    "name": outcome.name,
                    "attainment": round(outcome.attainment, 6),
                    "gpu_hours": round(outcome.gpu_hours, 4),
                    "ttft_p50_s": _finite(outcome.ttft_p50_s),
                    "ttft_p99_s": _finite(outcome.ttft_p99_s),
                    "tpot_p99_s": _finite(outcome.tpot_p99_s),
                    "cold_hits": outcome.cold_hits,
                    "scale_events": outcome.scale_events,
                    "cost": round(outcome.cost, 4),
                    "knobs": outcome.knobs,
                }
                for outcome in outcomes
            ],
        },
        indent=2,
    )


def frontiers_as_json(scenario: Scenario, frontiers: Mapping[str, Sequence[Point]]) -> str:
    """The frontiers in the shape that `penstock simulate --frontier --output json` promises."""
    return json.dumps(
        {
            **_head(scenario),
            "frontiers": [
                {
                    "name": name,
                    "points": [
                        {
                            "attainment": round(point.attainment, 6),
                            "gpu_hours": round(point.gpu_hours, 4),
                            "knobs": point.knobs,
                        }
                        for point in points
                    ],
                }
                for name, points in frontiers.items()
            ],
        },
        indent=2,
    )


def frontiers_as_table(scenario: Scenario, frontiers: Mapping[str, Sequence[Point]]) -> Table:
    """The frontiers for a terminal."""
    table = Table(title=f"{scenario.trace.name}: cold start {scenario.known_start_s():g} s")
    table.add_column("policy")
    table.add_column("attainment", justify="right")
    table.add_column("GPU-hours", justify="right")
    table.add_column("knobs")
    for name, points in frontiers.items():
        for point in points:
            table.add_row(name, f"{point.attainment:.4f}", f"{point.gpu_hours:.2f}", point.knobs)
        if not points:
            table.add_row(name, "none near the bar")
    return table


def _head(scenario: Scenario) -> dict[str, object]:
    return {
        "trace": {
            "name": scenario.trace.name,
            "requests": len(scenario.trace),
            "duration_s": round(scenario.trace.duration_s, 3),
        },
        "slo": {
            "ttft_s": scenario.ttft_s,
            "tpot_s": scenario.tpot_s,
            "attainment": scenario.attainment,
        },
        "cold_start_s": round(scenario.known_start_s(), 3),
        "work_bound_gpu_hours": round(work_bound_hours(scenario), 4),
    }


def as_table(scenario: Scenario, outcomes: Sequence[Outcome]) -> Table:
    """The comparison for a terminal."""
    trace = scenario.trace
    table = Table(
        title=f"{trace.name}: {len(trace)} requests in {trace.duration_s:.0f} s, "
        f"cold start {scenario.known_start_s():g} s, "
        f"TTFT {scenario.ttft_s:g} s, TPOT {scenario.tpot_s:g} s",
        caption=f"work bound {work_bound_hours(scenario):.2f} GPU-hours",
    )
    table.add_column("policy")
    for name in (
        "attainment", "GPU-hours", "TTFT p99 s", "TPOT p99 s", "cold hits", "scale events", "cost",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    table.add_column("knobs")
    for outcome in outcomes:
        short = outcome.attainment < scenario.attainment
        table.add_row(
            outcome.name,
            f"{outcome.attainment:.4f}" + (" (missed)" if short else ""),
            f"{outcome.gpu_hours:.2f}",
            f"{outcome.ttft_p99_s:.2f}",
            f"{outcome.tpot_p99_s:.3f}",
            str(outcome.cold_hits),
            str(outcome.scale_events),
            f"{outcome.cost:.2f}",
            outcome.knobs,
        )
    return table


def _finite(value: float) -> float | None:
    """JSON has no infinity: null means that requests never ended."""
    return round(value, 4) if math.isfinite(value) else None


def write_png(scenario: Scenario, outcomes: Sequence[Outcome], path: Path) -> bool:
    """Draws demand, engines and misses over time; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:  # an optional dependency
        return False
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    demand, engines, misses = figure.subplots(3, 1, sharex=True, height_ratios=(2, 3, 2))
    trace = scenario.trace
    slo = f"TTFT {scenario.ttft_s:g} s, TPOT {scenario.tpot_s:g} s, {scenario.attainment:.0%}"
    figure.suptitle(f"{trace.name}: cold start {scenario.known_start_s():g} s, SLO {slo}")
    ends_s = max([trace.duration_s, *(o.timeline[-1][0] for o in outcomes if o.timeline)])
    # One set of bins for all, whatever each policy missed.
    edges_s = np.arange(0.0, ends_s + 2 * BIN_S, BIN_S)
    tokens, _ = np.histogram(trace.arrival_s, edges_s, weights=trace.prompt)
    demand.stairs(tokens / 1000.0, edges_s / 60.0, fill=True, alpha=0.4)
    demand.set_ylabel(f"prompt tokens\n(1,000 in {BIN_S:g} s)")
    for outcome in outcomes:
        ours = outcome.name == "penstock"
        label = f"{outcome.name}: {outcome.gpu_hours:.1f} GPU-hours, {outcome.attainment:.2%}"
        at_s, count = zip(*outcome.timeline, strict=True) if outcome.timeline else ((), ())
        (line,) = engines.step(
            [s / 60.0 for s in at_s], count, where="post", label=label,
            linewidth=1.6 if ours else 1.0, zorder=3 if ours else 2,
        )  # fmt: skip
        missed, _ = np.histogram(outcome.missed_at_s, edges_s)
        misses.stairs(missed, edges_s / 60.0, color=line.get_color(), zorder=3 if ours else 2)
    engines.set_ylabel("engines")
    engines.set_ylim(bottom=0)
    figure.legend(*engines.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    misses.set_ylabel(f"missed requests\n(in {BIN_S:g} s)")
    misses.set_ylim(bottom=0)
    misses.set_xlabel("minutes")
    for axes in (demand, engines, misses):
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
    figure.savefig(path, dpi=90)
    return True


def write_frontiers_png(
    scenario: Scenario, frontiers: Mapping[str, Sequence[Point]], path: Path
) -> bool:
    """Draws attainment over GPU-hours; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:  # an optional dependency
        return False
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, points in frontiers.items():
        hours, met = [p.gpu_hours for p in points], [100.0 * p.attainment for p in points]
        ours = name == "penstock"
        axes.plot(hours, met, "o-", label=name, linewidth=2.0 if ours else 1.0, markersize=4)
    axes.axhline(100.0 * scenario.attainment, color="black", linestyle=":", linewidth=1.0)
    axes.axvline(work_bound_hours(scenario), color="grey", linestyle=":", linewidth=1.0)
    axes.set_xlabel("GPU-hours (dotted: all tokens at full rate)")
    axes.set_ylabel("requests that met the SLO, %")
    axes.set_title(f"{scenario.trace.name}, cold start {scenario.known_start_s():g} s")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=90)
    return True
