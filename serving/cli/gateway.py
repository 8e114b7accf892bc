"""`penstock gateway`: gateways on this machine, as many as it shall have cores for them."""

from typing import Annotated

import typer

from serving.settings import GatewaySettings


def gateway(
    count: Annotated[
        int, typer.Option("--workers", min=1, max=256, help="Processes; one a core is enough.")
    ] = 1,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Have the running gateway replace its workers by what is installed now: no "
            "connection is refused, no stream cut.",
        ),
    ] = False,
) -> None:
    """Run a gateway here, as the PENSTOCK_* settings say; or replace the workers of the one that
    runs. Each worker is a gateway of its own towards the controller, all share one port; one that
    died, or gave no sign of life for a minute, is replaced."""
    from serving.gateway import workers  # heavy: it brings the whole server

    if reload:
        pid = workers.reload(GatewaySettings.load())
        typer.echo(f"told the gateway of process {pid} to replace its workers", err=True)
        return
    workers.main(count)
