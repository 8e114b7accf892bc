"""`penstock bench`: hands over to the load tests, which know nothing of the platform."""

from typing import Annotated

import typer

from serving.cli.handover import hand_over
from serving.settings import ClientSettings


def bench(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="url and flags", show_default=False)
    ] = None,
) -> None:
    """Load test an OpenAI-compatible endpoint: by default the platform that PENSTOCK_URL names,
    with PENSTOCK_API_KEY. `penstock bench --help` lists the flags.
    """
    hand_over("loadtests.bench", arguments or (), PENSTOCK_URL=ClientSettings.load().url)
