"""`penstock status`: the platform at a glance."""

from serving.cli import client, output
from serving.cli.get import model_rows
from serving.cli.output import Format, OutputOption


def status(how: OutputOption = Format.TABLE) -> None:
    """Show the platform at a glance: pools, gateways, models."""
    with client.connect() as admin:
        seen = admin.status()
    if how is Format.JSON:
        output.print_json(seen.model_dump(mode="json"))
        return
    out = output.stdout()
    out.print(f"penstock {seen.version}, gateways: {seen.gateways}")
    for pool in seen.pools:
        out.print(
            f"pool {pool.name}: {pool.hosts} of {pool.hosts_wanted} hosts, {pool.hosts_free} free"
        )
    out.print()
    if seen.models:
        columns, rows = model_rows(seen.models)
        output.print_items(seen.models, columns, rows, how)
    else:
        out.print("no model is deployed: `penstock deploy builtin://guide`")
