"""`penstock scale`: other bounds for a model, or a pause of its autoscaler; restarts no engine."""

from typing import Annotated

import typer

from models.errors import BadRequestError
from serving.cli import client, output
from serving.cli.inputs import ModelArgument
from serving.scaling import ScalingChange


def scale(
    model: ModelArgument,
    least: Annotated[
        int | None, typer.Option("--min", min=0, help="Engines that run even when nobody asks.")
    ] = None,
    most: Annotated[
        int | None, typer.Option("--max", min=1, help="Engines that run at most.")
    ] = None,
    paused: Annotated[
        bool | None,
        typer.Option(
            "--pause/--resume",
            help="Leave the number of engines as it is, or have the autoscaler decide again.",
        ),
    ] = None,
) -> None:
    """Change the bounds of a model in place, or pause its autoscaler. The next deploy of a manifest
    sets what the manifest says."""
    change = ScalingChange(min=least, max=most, paused=paused)
    if change == ScalingChange():
        raise BadRequestError(
            "nothing to change",
            hint="give --min, --max, --pause or --resume",
        )
    with client.connect() as admin:
        applied = admin.scale(model, change)
        scaling = admin.model(model).manifest.scaling
    what = "scaled" if applied.changed else "is scaled like that already"
    state = ", the autoscaler is paused" if scaling.paused else ""
    output.stderr().print(
        f"model {model} {what}: min {scaling.min}, max {scaling.max}{state}; "
        f"revision {applied.revision}, no engine is restarted"
    )
