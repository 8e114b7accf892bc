"""`penstock simulate`: hands over to the simulator, which needs no platform."""

from typing import Annotated

import typer

from serving.cli.handover import hand_over


def simulate(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="flags", show_default=False)
    ] = None,
) -> None:
    """Replay a trace against autoscalers, ours with its live code, before you trust it.
    `penstock simulate --help` lists the flags.
    """
    hand_over("autoscaler", arguments or ())
