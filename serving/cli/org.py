"""`penstock org`: organisations, who pay."""

from typing import Annotated

import typer

from serving.cli import output
from serving.cli.inputs import checked
from serving.cli.output import Format, OutputOption, age
from serving.cli.tenant_client import tenants
from serving.tenancy import NewOrg, OrgView

app = typer.Typer(
    help="Organisations: who pay.", rich_markup_mode=None, pretty_exceptions_enable=False
)

Name = Annotated[str, typer.Argument(help="Name or id of the organisation.")]


@app.command("create")
def create(name: Name, how: OutputOption = Format.TABLE) -> None:
    """Make an organisation."""
    new = checked(NewOrg, name=name)
    with tenants() as client:
        show([client.add_org(new)], how)


@app.command("list")
def list_(how: OutputOption = Format.TABLE) -> None:
    """List the organisations."""
    with tenants() as client:
        show(client.orgs(), how)


@app.command("show")
def show_one(name: Name, how: OutputOption = Format.TABLE) -> None:
    """Show one organisation."""
    with tenants() as client:
        show([client.org(name)], how)


@app.command("delete")
def delete(name: Name) -> None:
    """Delete an organisation with its projects, and revoke their keys."""
    with tenants() as client:
        client.delete_org(name)
    output.stderr().print(f"organisation {name} deleted, its keys are revoked")


def show(orgs: list[OrgView], how: Format) -> None:
    """Prints organisations."""
    rows = [(org.name, org.org_id, age(org.created_at)) for org in orgs]
    output.print_items(orgs, ("name", "id", "age"), rows, how)
