"""`penstock simulate`: hands over to the simulator, which needs no platform."""

from typing import Annotated

import typer

from serving.cli.handover import hand_over
from serving.cli.platform import profiles_dir


def simulate(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="flags", show_default=False)
    ] = None,
) -> None:
    """Replay a trace against autoscalers, ours with its live code, before you trust it.
    `penstock simulate --help` lists the flags.
    """
    given = list(arguments or ())
    if not {"--help", "--profiles-dir"} & {one.partition("=")[0] for one in given}:
        given += ["--profiles-dir", str(profiles_dir())]
    hand_over("autoscaler", given)
