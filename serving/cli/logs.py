"""`penstock logs`: of an engine, of a model's newest engine, or of a part on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from models.errors import BadRequestError, NotFoundError
from serving.cli import client, output
from serving.cli.client import AdminClient
from serving.cli.parts import last_lines
from serving.cli.platform import Layout
from serving.settings import UpSettings


class PartName(StrEnum):
    """The parts of a platform on this machine."""

    UP = "up"
    LAUNCHER = "launcher"
    RAY = "ray"
    CONTROLLER = "controller"
    GATEWAY = "gateway"


def logs(
    name: Annotated[str | None, typer.Argument(help="A model, or an engine's id.")] = None,
    part: Annotated[
        PartName | None, typer.Option(help="A part of this machine's platform.")
    ] = None,
    tail: Annotated[int, typer.Option(min=1, max=100_000, help="Lines from the end.")] = 200,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the platform; PENSTOCK_DATA_DIR or .penstock.")
    ] = None,
) -> None:
    """Show the end of a log."""
    if (name is None) == (part is None):
        raise BadRequestError(
            "give either a model or engine, or a part",
            hint="`penstock logs guide`, or `penstock logs --part controller`",
        )
    if part is not None:
        _print_part(Layout.of(data_dir or UpSettings.load().data_dir), part, tail)
    elif name is not None:
        with client.connect() as admin:
            engine_id = _engine_of(admin, name)
            output.stderr().print(f"engine {engine_id}")
            typer.echo(admin.engine_log(engine_id, tail), nl=False)


def _print_part(layout: Layout, part: PartName, tail: int) -> None:
    path = layout.log(part)
    if not path.exists():
        raise NotFoundError(
            f"there is no {path}", hint="name the platform's folder with --data-dir"
        )
    for line in last_lines(path, tail, longest_bytes=16 << 20):
        typer.echo(line)


def _engine_of(admin: AdminClient, name: str) -> str:
    """The engine of this id, or the newest one of this model, that had a log, failed ones too.

    Raises:
        NotFoundError: If there is neither.
    """
    engines = admin.engines()
    if any(engine.engine_id == name for engine in engines):
        return name
    of_model = [engine for engine in engines if engine.model == name]
    if of_model:
        return max(of_model, key=lambda engine: engine.started_at).engine_id
    for event in reversed(admin.events(1000, name)):
        if event.engine_id is not None:
            return event.engine_id
    admin.model(name)  # says it where not even the model exists
    raise NotFoundError(
        f"model {name} has had no engine yet", hint=f"`penstock chat {name}` wakes one"
    )
