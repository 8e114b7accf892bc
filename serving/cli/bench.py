"""`penstock bench`: hands over to the load tests, which know nothing of the platform."""

import os
from typing import Annotated

import typer

from serving.cli.handover import hand_over
from serving.cli.platform import Layout, read_state
from serving.settings import ClientSettings, UpSettings

METRICS_URL = "PENSTOCK_METRICS_URL"


def bench(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="url and flags", show_default=False)
    ] = None,
) -> None:
    """Load test an OpenAI-compatible endpoint: by default the platform that PENSTOCK_URL names,
    with PENSTOCK_API_KEY. `penstock bench --help` lists the flags.
    """
    url = ClientSettings.load().url
    settings = {"PENSTOCK_URL": url}
    if METRICS_URL not in os.environ and (page := _metrics_of(url)) is not None:
        settings[METRICS_URL] = page
    if arguments and "--roofline" in arguments:
        from serving.cli.roofline import bench_roofline  # no other command needs it

        raise typer.Exit(bench_roofline(arguments, url, settings))
    hand_over("loadtests.bench", arguments or (), **settings)


def _metrics_of(url: str) -> str | None:
    """The controller's page of metrics, if the platform at the URL is the one of this folder."""
    state = read_state(Layout.of(UpSettings.load().data_dir))
    if state is None or state.url != url.rstrip("/") or "controller" not in state.ports:
        return None
    return f"http://127.0.0.1:{state.ports['controller']}/metrics"
