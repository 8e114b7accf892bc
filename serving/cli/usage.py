"""`penstock usage`: what tenants used, row by row or summed up, and whether the counts agree."""

import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from models.errors import BadRequestError
from serving.cli import client, output
from serving.cli.output import Format, OutputOption
from serving.usage_views import ExportFormat, GroupBy, ReconcileView, UsageView
from serving.views import Items

app = typer.Typer(
    help="Show what tenants used.",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}

DRIFTED = 1
"""Exit code of `reconcile` where counts differ."""

Since = Annotated[
    str, typer.Option(help="From when on: 90m, 24h, 7d ago, or a day or time as 2026-11-21T08:00.")
]
Until = Annotated[str | None, typer.Option(help="Before when, in the same forms; now by default.")]


@app.callback()
def usage(
    context: typer.Context,
    by: Annotated[GroupBy, typer.Option(help="What to sum up by.")] = GroupBy.MODEL,
    since: Since = "24h",
    until: Until = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """Sum up usage by organisation, project, key, model or tier, in whole hours."""
    if context.invoked_subcommand is not None:
        return
    with client.connect() as admin:
        parameters = {"by": by.value, **_span(since, until)}
        found = admin.read("/usage", Items[UsageView], parameters).items
    columns = (by.value, "requests", "unknown", "prompt", "cached", "completion", "reasoning")
    output.print_items(found, columns, [_row(one) for one in found], how)


@app.command("export")
def export(
    how: Annotated[ExportFormat, typer.Option("--format", help="CSV or JSON lines.")] = (
        ExportFormat.CSV
    ),
    since: Since = "24h",
    until: Until = None,
) -> None:
    """Write every request as a line to standard output, oldest first."""
    with client.connect() as admin:
        parts = admin.stream("/usage/export", {"format": how.value, **_span(since, until)})
        for part in parts:
            sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


@app.command("reconcile")
def reconcile(since: Since = "24h", how: OutputOption = Format.TABLE) -> None:
    """Hold usage against attempts, and attempts against the engines' counters; 1 if they differ."""
    with client.connect() as admin:
        seen = admin.read("/usage/reconcile", ReconcileView, _span(since, None))
    if how is Format.JSON:
        output.print_json(seen.model_dump(mode="json"))
    else:
        for line in told(seen):
            output.stdout().print(line)
    if not seen.clean:
        raise typer.Exit(DRIFTED)


def told(seen: ReconcileView) -> list[str]:
    """What reconciling found, as sentences."""
    counts = (
        (seen.unknown, "requests are unknown: their gateway died when bytes may have left"),
        (seen.unresolved, "requests wait for a recorder to tell their tokens"),
        (seen.usage_without_attempt, "whole answers are in no engine's recorder"),
        (seen.attempts_without_usage, "attempts belong to no settled request (some may run)"),
        (seen.lost_attempts, "attempts found a recorder full"),
    )
    lines = [f"{seen.requests} requests, {seen.attempts} attempts since {seen.since.isoformat()}"]
    lines += [f"{number} {what}" for number, what in counts if number]
    lines += [
        f"{one.between} differ by {one.tokens:+d} {_unit(one.kind)}: {one.left}, {one.right}"
        for one in seen.drifts
        if one.tokens
    ]
    return [*lines, "all counts agree"] if seen.clean else lines


def moment(text: str, now: float) -> float:
    """Unix seconds of a time in the forms that `--since` takes.

    Raises:
        BadRequestError: If it is none.
    """
    if (ago := re.fullmatch(r"(\d+)([mhdw])", text)) is not None:
        return now - int(ago.group(1)) * UNITS_S[ago.group(2)]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequestError(
            f"{text} is no time: 90m, 24h, 7d, 2026-11-21 or 2026-11-21T08:00", param="since"
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _span(since: str, until: str | None) -> dict[str, str]:
    now = time.time()
    span = {"since": str(moment(since, now))}
    return span if until is None else {**span, "until": str(moment(until, now))}


def _row(one: UsageView) -> list[str]:
    counts = (one.requests, one.unknown, one.prompt_tokens, one.cached_tokens,
              one.completion_tokens, one.reasoning_tokens)  # fmt: skip
    return [one.group or "-", *(str(count) for count in counts)]


def _unit(kind: str) -> str:
    return kind if kind == "attempts" else f"{kind} tokens"
