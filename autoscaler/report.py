"""Shows what policies made of a scenario: JSON, a table, a picture. Computes nothing of its own."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from autoscaler.simulate import Outcome, Scenario, work_bound_hours


def as_json(scenario: Scenario, outcomes: Sequence[Outcome]) -> str:
    """The comparison in the shape that `penstock simulate --output json` promises."""
    return json.dumps(
        {
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
    figure = Figure(figsize=(10, 7), layout="constrained")
    demand, engines, misses = figure.subplots(3, 1, sharex=True)
    minutes = scenario.trace.arrival_s / 60.0
    bins = max(10, int(scenario.trace.duration_s / 10.0))
    demand.hist(minutes, bins=bins, weights=scenario.trace.prompt, histtype="step")
    demand.set_ylabel("prompt tokens / 10 s")
    for outcome in outcomes:
        label = f"{outcome.name} {outcome.gpu_hours:.1f} h, {outcome.attainment:.2%}"
        at_s, count = zip(*outcome.timeline, strict=True) if outcome.timeline else ((), ())
        engines.step([s / 60.0 for s in at_s], count, where="post", label=label)
        misses.hist([s / 60.0 for s in outcome.missed_at_s], bins=bins, histtype="step")
    engines.set_ylabel("engines")
    engines.legend(fontsize="small")
    misses.set_ylabel("missed requests / 10 s")
    misses.set_xlabel("minutes")
    figure.savefig(path, dpi=80)
    return True
