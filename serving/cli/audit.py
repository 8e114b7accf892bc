"""`penstock audit`."""

from typing import Annotated

import typer

from serving.cli import output
from serving.cli.output import Format, OutputOption
from serving.cli.tenant_client import tenants


def audit(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Newest acts to list.")] = 50,
    subject: Annotated[str | None, typer.Option(help="Only acts upon this id.")] = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """List what operators did, newest last."""
    with tenants() as client:
        found = client.audit(limit, subject)
    rows = [
        (
            act.at.isoformat(timespec="seconds"),
            f"{act.actor_name} ({act.actor_id})",
            act.role.value,
            act.action,
            act.subject_id,
        )
        for act in found
    ]
    output.print_items(found, ("at", "who", "role", "what", "upon"), rows, how)
