"""`penstock key`: keys of tenants and of the platform's own people."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from models.errors import BadRequestError
from serving.cli import output
from serving.cli.inputs import allowed, checked, in_future, models, seconds
from serving.cli.output import Format, OutputOption, age
from serving.cli.tenant_client import tenants
from serving.identities import Role
from serving.tenancy import IssuedKey, KeyChange, KeyView, NewKey, Rotation

app = typer.Typer(
    help="Keys: who gets in, and for what.", rich_markup_mode=None, pretty_exceptions_enable=False
)

Name = Annotated[str, typer.Argument(help="Name or id of the key.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A model that it may call; repeat it. None: its project's."),
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    project: Annotated[
        str | None, typer.Option(help="Whose it is: `organisation/project`; else the default one.")
    ] = None,
    role: Annotated[Role, typer.Option(help="What it may do.")] = Role.INFERENCE,
    model: Models = None,
    expires_in: Annotated[
        str | None, typer.Option(help="How long it is valid, as 12h or 30d; else for ever.")
    ] = None,
    service_account: Annotated[
        str | None, typer.Option(help="The program that it is for; made where there is none.")
    ] = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """Make a key, and print it this once."""
    if service_account is not None and project is None:
        raise BadRequestError("a service account belongs to a --project", param="project")
    expires_at = in_future(expires_in, "--expires-in")
    with tenants() as client:
        account_id = None
        if service_account is not None and project is not None:
            account_id = client.account(project, service_account).account_id
        new = checked(
            NewKey,
            name=name,
            role=role,
            project_id=None if project is None else client.project(project).project_id,
            account_id=account_id,
            models=models(model),
            expires_at=expires_at,
        )
        issued = client.issue(new)
    _print_issued(issued, how)


@app.command("list")
def list_(
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    revoked: Annotated[bool, typer.Option(help="Those that are revoked too.")] = False,
    how: OutputOption = Format.TABLE,
) -> None:
    """List the keys, without what could be used as one."""
    with tenants() as client:
        found = client.keys(project)
    show([key for key in found if revoked or key.revoked_at is None], how)


@app.command("show")
def show_one(name: Name, how: OutputOption = Format.TABLE) -> None:
    """Show one key."""
    with tenants() as client:
        show([client.key(name)], how)


@app.command("allow")
def allow(
    name: Name,
    model: Models = None,
    all_models: Annotated[
        bool, typer.Option("--all", help="Allow all models of its project again.")
    ] = False,
    how: OutputOption = Format.TABLE,
) -> None:
    """Set which models a key may call."""
    change = KeyChange(models=allowed(model, everything=all_models))
    with tenants() as client:
        show([client.change_key(name, change)], how)


@app.command("rotate")
def rotate(
    name: Name,
    overlap: Annotated[str, typer.Option(help="How long the old one is valid too.")] = "1h",
    how: OutputOption = Format.TABLE,
) -> None:
    """Give a key a new plain text, and print it this once; its id and limits stay."""
    rotation = checked(Rotation, overlap_s=seconds(overlap, "--overlap"))
    with tenants() as client:
        issued = client.rotate(name, rotation)
    _print_issued(issued, how)


@app.command("revoke")
def revoke(name: Name) -> None:
    """End a key: gateways refuse it within a second."""
    with tenants() as client:
        key = client.revoke(name)
    output.stderr().print(f"key {key.name} ({key.key_id}) is revoked")


def show(keys: list[KeyView], how: Format) -> None:
    """Prints keys."""
    columns = ("name", "id", "role", "begins", "project", "models", "age", "state")
    rows = [
        (
            key.name,
            key.key_id,
            key.role.value,
            key.prefix,
            key.project_id or "-",
            "all" if key.models is None else ",".join(key.models) or "none",
            age(key.created_at),
            _state(key),
        )
        for key in keys
    ]
    output.print_items(keys, columns, rows, how)


def _state(key: KeyView) -> str:
    now = datetime.now(UTC)
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    if key.overlap_until is not None and key.overlap_until > now:
        return f"rotated; the old one until {key.overlap_until.isoformat(timespec='minutes')}"
    if key.expires_at is not None:
        return f"valid until {key.expires_at.isoformat(timespec='minutes')}"
    return "valid"


def _print_issued(issued: IssuedKey, how: Format) -> None:
    if how is Format.JSON:
        output.print_json(issued.model_dump(mode="json"))
        return
    typer.echo(issued.secret)
    output.stderr().print(
        f"key {issued.key.name} ({issued.key.key_id}); it is shown this once and stored nowhere"
    )
