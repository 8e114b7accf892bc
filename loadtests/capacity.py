"""Searches a server for the highest rate at which an SLO holds, and tells what was found."""

from collections.abc import Callable, Sequence

import orjson
from rich.console import Console
from rich.table import Table

from loadtests.client import Client
from loadtests.execute import Server, execute, prepare
from loadtests.measure import Outcome
from loadtests.profile import Open, Profile
from loadtests.search import Capacity, Objective, Probe, find_capacity

DURATION_S = 30.0
LEAST_REQUESTS = 20
"""A run with fewer requests says nothing."""


async def search(
    server: Server, profile: Profile, objectives: Sequence[Objective], *, duration_s: float,
    start_rps: float, tell: Callable[[str], None],
) -> Capacity:  # fmt: skip
    """Runs the profile's workload open-loop at one rate after the other.

    Raises:
        SearchError: The client was at its end, or the SLO holds at any rate.
        ServerError: The server cannot be used.
        ValueError: A rate or duration that is not positive.
    """
    if start_rps <= 0 or duration_s <= 0:
        raise ValueError("the rate and the duration are positive")
    async with Client(server.url, server.api_key, profile.timeout_s) as client:
        prepared = await prepare(client, server.model, profile)
        burstiness = profile.load.burstiness if isinstance(profile.load, Open) else 1.0

        async def measure(rate_rps: float, seed: int) -> Sequence[Outcome]:
            load = Open(rate_rps=rate_rps, duration_s=duration_s, burstiness=burstiness)
            run = await execute(
                prepared, profile.model_copy(update={"load": load}), seed=profile.seed + seed
            )
            return sorted(run.outcomes, key=lambda outcome: outcome.due_s)

        return await find_capacity(
            measure,
            objectives,
            start_rps=max(start_rps, LEAST_REQUESTS / duration_s),
            least_rps=LEAST_REQUESTS / duration_s,
            tell=lambda probe: tell(_said(probe, objectives)),
        )


def _said(probe: Probe, objectives: Sequence[Objective]) -> str:
    figures = ", ".join(
        f"{_name(objective)} {_time(value_s)}"
        for objective, value_s in zip(objectives, probe.figures_s, strict=True)
    )
    verdict = "holds" if probe.holds else "broken"
    return f"{probe.rate_rps:8.2f} requests/s: {verdict} ({figures}; {len(probe.scores)} runs)"


def _name(objective: Objective) -> str:
    return f"{objective.kind}_p{objective.percent:g}"


def _time(value_s: float | None) -> str:
    return "not measured" if value_s is None else f"{value_s * 1000:,.0f} ms"


BAR = 40


def show(objectives: Sequence[Objective], found: Capacity, console: Console) -> None:
    """Prints latency over rate, and the capacity."""
    rows = Table(title="Latency over rate", title_justify="left", show_edge=False)
    rows.add_column("requests/s", justify="right")
    for objective in objectives:
        rows.add_column(f"{_name(objective)}, at most {_time(objective.most_s)}", justify="left")
    rows.add_column("SLO")
    for probe in found.probes:
        cells = [
            f"{'█' * _length(value_s, objective)} {_time(value_s)}"
            for objective, value_s in zip(objectives, probe.figures_s, strict=True)
        ]
        rows.add_row(f"{probe.rate_rps:.2f}", *cells, "holds" if probe.holds else "broken")
    console.print(rows)
    console.print(
        f"capacity: {found.rate_rps:.2f} requests/s; the highest rate that was tried and held: "
        f"{found.held_rps:.2f}"
    )


def _length(value_s: float | None, objective: Objective) -> int:
    """A bar that is half as long as it can be where the objective is just kept."""
    if value_s is None:
        return 0
    return min(BAR, round(BAR / 2 * value_s / objective.most_s))


def to_json(server: Server, objectives: Sequence[Objective], found: Capacity) -> bytes:
    """What was found, for programs; times in seconds."""
    fields = {
        "url": server.url,
        "slo": {_name(objective): objective.most_s for objective in objectives},
        "capacity_rps": found.rate_rps,
        "held_rps": found.held_rps,
        "probes": [
            {
                "rate_rps": probe.rate_rps,
                "holds": probe.holds,
                "runs": len(probe.scores),
                "score": probe.score,
                **{
                    f"{_name(objective)}_s": value_s
                    for objective, value_s in zip(objectives, probe.figures_s, strict=True)
                },
            }
            for probe in found.probes
        ],
    }
    return orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
