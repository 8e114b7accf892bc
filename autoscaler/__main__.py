"""Simulates autoscalers on a trace from the command line: `python -m autoscaler --help`."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autoscaler.capacity import below_floor
from autoscaler.fleet import engine_of, parse_engine
from autoscaler.frontier import frontiers
from autoscaler.report import (
    as_json,
    as_table,
    frontiers_as_json,
    frontiers_as_table,
    write_frontiers_png,
    write_png,
)
from autoscaler.simulate import PLACES, Scenario
from autoscaler.traces import load_trace, scale_rate
from autoscaler.tuning import POLICIES, compare
from models.errors import BadRequestError, PenstockError
from models.profile_measured import load_measured
from models.profile_search import Here, Search, profiles_named, why_not_here


class Output(StrEnum):
    """How the comparison is printed."""

    TABLE = "table"
    JSON = "json"


def parse_seconds(text: str, param: str) -> tuple[float, ...]:
    """Reads `2`, measured values `0.4,0.5,0.9`, or a file with one value a line.

    Raises:
        BadRequestError: If a value is not a number of seconds.
    """
    path = Path(text)
    parts = path.read_text("utf-8").split() if path.is_file() else text.split(",")
    try:
        values = tuple(float(part) for part in parts)
    except ValueError as exc:
        raise BadRequestError(f"{exc}", param=param) from exc
    if not values or not all(0.0 <= value < 86_400.0 for value in values):
        raise BadRequestError(f"{param} takes 0 s or more", param=param)
    return values


def parse_policies(text: str) -> list[str]:
    """Reads `all` or names with commas between them.

    Raises:
        BadRequestError: If a policy is unknown.
    """
    names = list(POLICIES) if text == "all" else text.split(",")
    for name in names:
        if name not in POLICIES:
            raise BadRequestError(
                f"there is no policy {name!r}", param="policy", hint=", ".join(POLICIES)
            )
    return names


def measured_profile(wanted: str, folder: Path, here: Here) -> Search:
    """The profile of a file, or of a model's name in the folder.

    A file that is named is used whatever it was measured on, with a warning; of a model's profiles
    those of another machine or version are left aside.

    Raises:
        ProfileError: If a named file cannot be used.
        BadRequestError: If the folder has none of the name.
    """
    if Path(wanted).suffix in (".yaml", ".yml"):
        profile = load_measured(Path(wanted))
        reason = why_not_here(profile, here)
        return Search(profile, () if reason is None else (f"{wanted}: {reason}",))
    found = profiles_named(folder, wanted, here)
    if found.profile is None and not found.warnings:
        raise BadRequestError(
            f"there is no measured profile of {wanted} in {folder}",
            param="profile",
            hint=f"`penstock tune {wanted}` makes one",
        )
    return found


def simulate(
    trace: Annotated[Path, typer.Option(help="Azure CSV or Mooncake JSON lines, plain or .gz.")],
    rate_scale: Annotated[float, typer.Option(help="Mean copies of each arrival.")] = 1.0,
    cold_start: Annotated[str, typer.Option(help="Seconds, measured values, or a file.")] = "2",
    way: Annotated[
        str, typer.Option(help="Of a request outside its engine: as --cold-start.")
    ] = "0",
    policy: Annotated[str, typer.Option(help="`all`, or names with commas.")] = "penstock",
    engine: Annotated[str, typer.Option(help="As slots=128,prefill_tps=35000,step_ms=8.")] = "",
    profile: Annotated[
        str | None,
        typer.Option(help="Model that `penstock tune` measured, or the file of its profile."),
    ] = None,
    profiles_dir: Annotated[Path, typer.Option(help="Folder of measured profiles.")] = Path(
        ".penstock/profiles"
    ),
    ttft: Annotated[float, typer.Option(help="SLO in seconds, from the gateway's door.")] = 2.0,
    tpot: Annotated[float, typer.Option(help="SLO in seconds for each further token.")] = 0.1,
    attainment: Annotated[float, typer.Option(help="Share that shall meet the SLO.")] = 0.99,
    idle_timeout: Annotated[float, typer.Option(help="Seconds until a model may sleep.")] = 300.0,
    max_engines: Annotated[int, typer.Option(help="Engines that hosts can take.")] = PLACES,
    price: Annotated[float, typer.Option(help="Of one GPU for one hour.")] = 0.0,
    gpus: Annotated[int, typer.Option(help="GPUs of one engine.")] = 1,
    seed: Annotated[int, typer.Option(help="Of copies, jitter and cold starts.")] = 1,
    jobs: Annotated[
        int, typer.Option(help="Processes that search rivals' knobs; 0: one a core.", min=0)
    ] = 0,
    frontier: Annotated[
        bool, typer.Option(help="Each policy over all its knobs, not with the best ones alone.")
    ] = False,
    output: Annotated[Output, typer.Option(help="What to print.")] = Output.TABLE,
    png: Annotated[
        Path | None, typer.Option(help="Draw demand, engines and misses; or the frontiers.")
    ] = None,
) -> None:
    """Replays a trace against autoscalers, ours with its live code."""
    err = Console(stderr=True)
    try:
        base = None
        if profile is not None:
            found = measured_profile(profile, profiles_dir, Here.of_this_machine())
            for warning in found.warnings:
                err.print(f"warning: {warning}")
            base = None if found.profile is None else engine_of(found.profile)
        scenario = Scenario(
            trace=scale_rate(load_trace(trace), rate_scale, seed),
            engine=parse_engine(engine, base),
            cold_starts_s=parse_seconds(cold_start, "cold_start"), ways_s=parse_seconds(way, "way"),
            ttft_s=ttft, tpot_s=tpot, attainment=attainment, idle_timeout_s=idle_timeout,
            places=max_engines, seed=seed, price_per_gpu_hour=price, gpus=gpus,
        )  # fmt: skip
        capacity = scenario.engine.capacity()
        for warning in below_floor(capacity, ttft, tpot, scenario.known_start_s()):
            err.print(f"warning: {warning}")
        names, processes = parse_policies(policy), jobs or os.cpu_count() or 1
        drawn = (
            _show_frontiers(scenario, names, processes, output, png)
            if frontier
            else _show_outcomes(scenario, names, processes, output, png)
        )
    except PenstockError as exc:
        err.print(f"error: {exc}")
        if exc.hint:
            err.print(f"hint: {exc.hint}")
        sys.exit(exc.exit_code)
    if not drawn:
        err.print("no picture: matplotlib is not installed")


def _show_outcomes(
    scenario: Scenario, names: list[str], jobs: int, output: Output, png: Path | None
) -> bool:
    outcomes = compare(scenario, names, jobs)
    if output is Output.JSON:
        sys.stdout.write(as_json(scenario, outcomes) + "\n")
    else:
        Console().print(as_table(scenario, outcomes))
    return png is None or write_png(scenario, outcomes, png)


def _show_frontiers(
    scenario: Scenario, names: list[str], jobs: int, output: Output, png: Path | None
) -> bool:
    found = frontiers(scenario, names, jobs)
    if output is Output.JSON:
        sys.stdout.write(frontiers_as_json(scenario, found) + "\n")
    else:
        Console().print(frontiers_as_table(scenario, found))
    return png is None or write_frontiers_png(scenario, found, png)


if __name__ == "__main__":
    typer.run(simulate)
