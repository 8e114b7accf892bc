"""`penstock get`: lists of the platform's resources."""

from collections.abc import Sequence
from typing import Annotated

import typer

from serving.cli import client, output
from serving.cli.inputs import ModelArgument
from serving.cli.output import Format, OutputOption, age
from serving.views import EngineView, EventView, HostView, ModelView, RevisionView

app = typer.Typer(
    help="List models, engines, hosts, events or revisions.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Rows = tuple[Sequence[str], Sequence[Sequence[str]]]


@app.command("models")
def models(how: OutputOption = Format.TABLE) -> None:
    """List the deployed models."""
    with client.connect() as admin:
        found = admin.models()
    output.print_items(found, *model_rows(found), how)


@app.command("engines")
def engines(how: OutputOption = Format.TABLE) -> None:
    """List the engines, running or just ended."""
    with client.connect() as admin:
        found = admin.engines()
    output.print_items(found, *engine_rows(found), how)


@app.command("hosts")
def hosts(how: OutputOption = Format.TABLE) -> None:
    """List the hosts of all pools."""
    with client.connect() as admin:
        found = admin.hosts()
    output.print_items(found, *host_rows(found), how)


@app.command("events")
def events(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Newest events to list.")] = 100,
    model: Annotated[str | None, typer.Option(help="Only events of this model.")] = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """List what happened, newest last."""
    with client.connect() as admin:
        found = admin.events(limit, model)
    output.print_items(found, *event_rows(found), how)


@app.command("revisions")
def revisions(
    model: ModelArgument,
    how: OutputOption = Format.TABLE,
) -> None:
    """List the revisions of a model."""
    with client.connect() as admin:
        found = admin.revisions(model)
    output.print_items(found, *revision_rows(found), how)


def model_rows(found: Sequence[ModelView]) -> Rows:
    """Models as a table."""
    columns = (
        "name", "state", "engines", "why", "queued", "in flight", "revision", "source", "reason",
    )  # fmt: skip
    return columns, [
        (
            model.name,
            model.state.value,
            f"{model.engines_ready}/{model.engines_wanted}",
            model.scaling_reason or "-",
            str(model.queued),
            str(model.in_flight),
            str(model.revision),
            model.source,
            model.reason,
        )
        for model in found
    ]


def engine_rows(found: Sequence[EngineView]) -> Rows:
    """Engines as a table."""
    columns = ("engine", "model", "revision", "phase", "host", "pid", "in flight", "age", "error")
    return columns, [
        (
            engine.engine_id,
            engine.model,
            str(engine.revision),
            engine.phase.value,
            engine.host_id,
            str(engine.pid or "-"),
            f"{engine.in_flight}/{engine.slots}",
            age(engine.started_at),
            " ".join(part for part in (engine.error, engine.hint) if part),
        )
        for engine in found
    ]


def host_rows(found: Sequence[HostView]) -> Rows:
    """Hosts as a table."""
    columns = ("host", "pool", "node", "accelerators", "pid", "model", "engine", "age", "seen")
    return columns, [
        (
            host.host_id,
            host.pool,
            host.node,
            ",".join(host.accelerators) or "-",
            str(host.pid),
            host.model or "-",
            host.engine_id or "-",
            age(host.registered_at),
            f"{host.seen_s_ago:.1f}s ago",
        )
        for host in found
    ]


def event_rows(found: Sequence[EventView]) -> Rows:
    """Events as a table."""
    columns = ("at", "kind", "model", "engine", "message")
    return columns, [
        (
            event.at.isoformat(timespec="seconds"),
            event.kind,
            event.model or "-",
            event.engine_id or "-",
            event.message,
        )
        for event in found
    ]


def revision_rows(found: Sequence[RevisionView]) -> Rows:
    """Revisions as a table."""
    columns = ("model", "revision", "source", "age")
    return columns, [
        (one.model, str(one.revision), one.manifest.source, age(one.created_at)) for one in found
    ]
