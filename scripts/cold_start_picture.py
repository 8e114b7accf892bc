"""Draws GPU-hours over the cold start for docs/concepts/autoscaling.md, from recorded traces.

    python scripts/cold_start_picture.py TRACES docs/concepts/images/cold-start.png

TRACES is a folder with the Azure conversation and code traces. Prints the figures as it goes.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from autoscaler.simulate import Outcome, Scenario, least_static, run_penstock
from autoscaler.traces import load_trace, scale_rate

STARTS_S = (0.3, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0)
TRACES = (
    ("AzureLLMInferenceTrace_conv.csv.gz", 20.0, "conversation x 20"),
    ("AzureLLMInferenceTrace_code.csv.gz", 5.0, "code x 5"),
)
"""File, rate scale, title."""
ATTAINMENT = 0.99
SEED = 1


def main() -> int:
    """Runs the live policy at each cold start, and the least static fleet once for each trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    found = {}
    for name, scale, title in TRACES:
        scenario = Scenario(trace=scale_rate(load_trace(options.traces / name), scale, SEED))
        outcomes = [run_penstock(replace(scenario, cold_starts_s=(s,))) for s in STARTS_S]
        for start_s, one in zip(STARTS_S, outcomes, strict=True):
            sys.stdout.write(
                f"{title}, {start_s:g} s: {one.gpu_hours:.2f} GPU-hours, {one.attainment:.4f}\n"
            )
            sys.stdout.flush()
        found[title] = outcomes, least_static(scenario)
    draw(found, options.picture)
    return 0


def draw(found: dict[str, tuple[list[Outcome], Outcome]], picture: Path) -> None:
    """The outcomes over the cold start, and the static fleet's of each trace."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    highest = [
        max(outcomes[n].gpu_hours for outcomes, _ in found.values()) for n in range(len(STARTS_S))
    ]
    for title, (outcomes, static) in found.items():
        hours = [outcome.gpu_hours for outcome in outcomes]
        (line,) = axes.plot(STARTS_S, hours, label=f"{title}: penstock")
        axes.axhline(
            static.gpu_hours, linestyle="--", linewidth=1, color=line.get_color(),
            label=f"{title}: least static fleet in hindsight, {static.gpu_hours:.1f}",
        )  # fmt: skip
        for start_s, outcome, top in zip(STARTS_S, outcomes, highest, strict=True):
            met = outcome.attainment >= ATTAINMENT
            axes.plot(
                start_s, outcome.gpu_hours, "o", color=line.get_color(),
                markerfacecolor=line.get_color() if met else "white",
            )  # fmt: skip
            if not met:
                above = outcome.gpu_hours == top
                axes.annotate(
                    f"{outcome.attainment:.1%}", (start_s, outcome.gpu_hours),
                    textcoords="offset points", xytext=(0, 8 if above else -15), ha="center",
                    fontsize=8, color=line.get_color(),
                )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(STARTS_S, [f"{s:g}" for s in STARTS_S])
    axes.minorticks_off()
    axes.set_ylim(0, 18)
    axes.set_xlabel(
        "cold start, seconds (empty circles: 99 % is out of reach, what was attained stands there)"
    )
    axes.set_ylabel("GPU-hours")
    axes.set_title("What a cold start costs: TTFT 2 s, TPOT 100 ms, 99 %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    sys.exit(main())
