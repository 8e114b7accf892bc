"""`penstock project`: projects of organisations, and their service accounts."""

from typing import Annotated

import typer

from models.errors import BadRequestError
from serving.cli import output
from serving.cli.inputs import allowed, checked, models
from serving.cli.output import Format, OutputOption, age
from serving.cli.tenant_client import tenants
from serving.tenancy import NewProject, ProjectChange, ProjectView

app = typer.Typer(
    help="Projects: an organisation's keys, models and limits, kept apart.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(help="The project: `organisation/project`, or its id.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A model that its keys may call; repeat it. None: all models."),
]


@app.command("create")
def create(name: Name, model: Models = None, how: OutputOption = Format.TABLE) -> None:
    """Make a project: `penstock project create acme/web`."""
    org, slash, project = name.partition("/")
    if not slash:
        raise BadRequestError("the name must read `organisation/project`", param="name")
    with tenants() as client:
        new = checked(NewProject, org_id=client.org(org).org_id, name=project, models=models(model))
        show([client.add_project(new)], how)


@app.command("list")
def list_(
    org: Annotated[str | None, typer.Option(help="Only those of this organisation.")] = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """List the projects."""
    with tenants() as client:
        show(client.projects(org), how)


@app.command("show")
def show_one(name: Name, how: OutputOption = Format.TABLE) -> None:
    """Show one project."""
    with tenants() as client:
        show([client.project(name)], how)


@app.command("allow")
def allow(
    name: Name,
    model: Models = None,
    all_models: Annotated[bool, typer.Option("--all", help="Allow all models again.")] = False,
    how: OutputOption = Format.TABLE,
) -> None:
    """Set which models a project's keys may call."""
    change = ProjectChange(models=allowed(model, everything=all_models))
    with tenants() as client:
        show([client.change_project(name, change)], how)


@app.command("delete")
def delete(name: Name) -> None:
    """Delete a project, and revoke its keys."""
    with tenants() as client:
        client.delete_project(name)
    output.stderr().print(f"project {name} deleted, its keys are revoked")


@app.command("accounts")
def accounts(name: Name, how: OutputOption = Format.TABLE) -> None:
    """List a project's service accounts; `key create --service-account` makes them."""
    with tenants() as client:
        found = client.accounts(name)
    rows = [(one.name, one.account_id, age(one.created_at)) for one in found]
    output.print_items(found, ("name", "id", "age"), rows, how)


@app.command("delete-account")
def delete_account(
    name: Name, account: Annotated[str, typer.Argument(help="Name or id of the account.")]
) -> None:
    """Delete a service account, and revoke its keys."""
    with tenants() as client:
        client.delete_account(name, account)
    output.stderr().print(f"service account {account} deleted, its keys are revoked")


def show(projects: list[ProjectView], how: Format) -> None:
    """Prints projects."""
    rows = [
        (
            f"{project.org}/{project.name}",
            project.project_id,
            "all" if project.models is None else ",".join(project.models) or "none",
            age(project.created_at),
        )
        for project in projects
    ]
    output.print_items(projects, ("name", "id", "models", "age"), rows, how)
