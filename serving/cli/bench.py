"""`penstock bench`: hands over to the load tests, which know nothing of the platform."""

import os
import sys
from typing import Annotated

import typer

from serving.settings import ClientSettings


def bench(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="url and flags", show_default=False)
    ] = None,
) -> None:
    """Load test an OpenAI-compatible endpoint: by default the platform that PENSTOCK_URL names,
    with PENSTOCK_API_KEY. `penstock bench --help` lists the flags.
    """
    # Exec, not a child: the load tests want the processor, the terminal and Ctrl-C to themselves.
    # -P, as for all our processes: what lies in the current folder is not imported.
    environment = os.environ | {"PENSTOCK_URL": ClientSettings.load().url}
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-P", "-m", "loadtests.bench", *(arguments or ())]
    os.execve(sys.executable, command, environment)  # noqa: S606, there is no shell to be had
