"""How the command line prints: data to stdout, progress to stderr, JSON where it is asked for."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from models.errors import PenstockError

WIDE = 200
"""Columns where the output is no terminal: nothing is cut that a script may look for."""


class Format(StrEnum):
    """How a read is printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.")]


def stdout() -> Console:
    """The console for data."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=WIDE)


def stderr() -> Console:
    """The console for progress and errors."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def print_items(
    items: Sequence[BaseModel], columns: Sequence[str], rows: Sequence[Sequence[str]], how: Format
) -> None:
    """Prints a list: as `{"items": [...]}`, or one line each below the columns' names."""
    if how is Format.JSON:
        print_json({"items": [item.model_dump(mode="json") for item in items]})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), no_wrap=column not in ("reason", "message"))
    for row in rows:
        table.add_row(*row)
    stdout().print(table)


def print_json(document: object) -> None:
    """Prints one JSON document."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_error(error: PenstockError) -> None:
    """Prints an error and its hint as the last two lines on stderr."""
    console = stderr()
    console.print(f"error: {error}", style="red")
    if error.hint:
        console.print(f"hint: {error.hint}")


def age(then: datetime) -> str:
    """How long ago something was, in its largest unit: `42s`, `7m`, `3h`, `5d`."""
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
