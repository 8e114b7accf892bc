"""`penstock tune`: searches engine arguments for a model on the hardware at hand."""

import re
from pathlib import Path
from typing import Annotated

import typer

from models.errors import BadRequestError
from models.manifest import Goal
from serving.cli.output import Format, OutputOption

UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_span(text: str) -> float:
    """Reads `90s`, `20m` or `1.5h`, in seconds.

    Raises:
        BadRequestError: If it is none of these.
    """
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if matched is None or not float(matched[1]) > 0:
        raise BadRequestError(f"a time is as 20m, not {text!r}", param="budget")
    return float(matched[1]) * UNITS_S[matched[2]]


def parse_counts(text: str) -> tuple[int, ...]:
    """Reads `1,8,32`; in order, each once.

    Raises:
        BadRequestError: If it is no list of counts.
    """
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise BadRequestError(f"concurrencies are as 1,8,32, not {text!r}", param="concurrency")
    return tuple(found)


def tune(
    model: Annotated[
        str, typer.Argument(help="Name in the catalog, a manifest (model.yaml), or a source.")
    ],
    slo: Annotated[
        str, typer.Option(help="What the best arguments must keep; figures in seconds.")
    ] = "ttft_p99=2,tpot_p99=0.1",
    budget: Annotated[str, typer.Option(help="Time for all trials together, as 90s, 20m.")] = "20m",
    goal: Annotated[Goal, typer.Option(help="What counts most.")] = "throughput",
    accelerator: Annotated[
        str | None,
        typer.Option(help="Variant of the catalog's model; by default what this machine has."),
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option(help="Requests at once that are measured, as 1,8,32.")
    ] = None,
    input_tokens: Annotated[int | None, typer.Option(min=1, help="Of each prompt.")] = None,
    output_tokens: Annotated[int | None, typer.Option(min=2, help="Of each answer.")] = None,
    pairs: Annotated[
        int, typer.Option(min=0, help="Runs of the best and of the defaults, compared at last.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Of prompts and drawn combinations.")] = 0,
    profiles_dir: Annotated[
        Path | None, typer.Option(help="Where the profile is written; default: .penstock/profiles.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where trials are kept; default: .penstock.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew: forget the trials of an earlier run.")
    ] = False,
    how: OutputOption = Format.TABLE,
) -> None:
    """Find the engine arguments for a model on this machine, and write a measured profile.

    Needs no platform: starts engines of its own, one at a time. Each trial is kept; a run that was
    stopped or killed goes on when the same command is given again.
    """
    from serving.cli import tune_run  # engines and their clients: not for every command

    tune_run.tune(
        tune_run.Wanted(
            model=model,
            slo=slo,
            budget_s=parse_span(budget),
            goal=goal,
            accelerator=accelerator,
            concurrencies=None if concurrency is None else parse_counts(concurrency),
            prompt_tokens=input_tokens,
            answer_tokens=output_tokens,
            pairs=pairs,
            seed=seed,
            profiles_dir=profiles_dir,
            data_dir=data_dir,
            fresh=fresh,
        ),
        how,
    )
