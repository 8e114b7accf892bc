"""`penstock trace`: where the time of a model's start went, as a waterfall."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import typer
from rich.table import Table

from models.errors import NotFoundError
from serving.cli import client, output
from serving.cli.inputs import ModelArgument
from serving.cli.output import Format, OutputOption
from serving.views import StartView

BAR_WIDTH = 50


def trace(
    model: ModelArgument,
    start: Annotated[
        str | None, typer.Option(help="Id of a start, or its beginning; by default the last one.")
    ] = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """Show the phases of a model's start, from the request that caused it to its first token."""
    with client.connect() as admin:
        found = admin.starts(model)
    if start is not None:
        found = [one for one in found if one.start_id.startswith(start)]
    if how is Format.JSON:
        output.print_json({"items": [one.model_dump(mode="json") for one in found]})
        return
    if not found:
        raise NotFoundError(
            f"no such start of {model} is known",
            hint=f"`penstock chat {model}` wakes a sleeping model; only the last starts are kept",
        )
    show(found[-1])


def show(one: StartView) -> None:
    """Prints one start as a waterfall: a line for each phase, its bar where it lies in time."""
    console = output.stdout()
    console.print(f"start {one.start_id} of {one.model} revision {one.revision}")
    began_at = one.began_at.isoformat(timespec="milliseconds")
    console.print(f"engine {one.engine_id} on {one.host_id}, {began_at}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("PHASE")
    table.add_column("TOOK", justify="right")
    table.add_column("AT", justify="right")
    table.add_column("", no_wrap=True)
    for phase, took_ms, at_ms, bar in rows(one):
        table.add_row(phase, took_ms, at_ms, bar)
    console.print(table)
    if one.error is not None:
        console.print(f"failed: {one.error}")
        if one.hint is not None:
            console.print(f"hint: {one.hint}")
    if one.waited_s is not None:
        console.print(f"the request waited {one.waited_s * 1000:.0f} ms for its first token")


def rows(one: StartView) -> Sequence[tuple[str, str, str, str]]:
    """Phase, duration, end and bar of each line."""
    ends = [(mark.phase.value, mark.at_s) for mark in one.marks]
    if one.failed_at_s is not None:
        ends.append(("failed", one.failed_at_s))
    whole_s = (ends[-1][1] if ends else 0.0) or 1.0
    lines = []
    for (_, before_s), (name, at_s) in pairwise(ends):
        begin, end = (round(BAR_WIDTH * one_s / whole_s) for one_s in (before_s, at_s))
        bar = " " * begin + ("\u2588" * (end - begin) or "\u258f")
        lines.append((name, f"{(at_s - before_s) * 1000:.1f} ms", f"{at_s * 1000:.1f} ms", bar))
    return lines
