"""`penstock adapter`: LoRA adapters of a model, which come and go while its engines run."""

import time
from typing import Annotated

import typer

from models.errors import PenstockError
from serving.adapters import AdapterView, NewAdapter
from serving.cli import client, output
from serving.cli.client import AdminClient
from serving.cli.inputs import ModelArgument, checked
from serving.cli.output import Format, OutputOption
from serving.views import Applied, Items

POLL_S = 0.25

app = typer.Typer(
    help="Add, remove or list the LoRA adapters of a model.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(help="Name of the adapter; tenants call MODEL:NAME.")]


class NotLoadedError(PenstockError):
    """The engines have not loaded the adapter within the time that was given."""

    code = "adapter_not_loaded"
    exit_code = 1


@app.command("add")
def add(
    model: ModelArgument,
    name: Name,
    source: Annotated[
        str, typer.Argument(help="Where it is: file:///folder, hf://org/name, s3://bucket/prefix.")
    ],
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until the engines that run have it.")
    ] = 60.0,
) -> None:
    """Serve a LoRA adapter as MODEL:NAME, or give one another source. No engine is restarted, but
    where the model's engines have no room for adapters yet."""
    new = checked(NewAdapter, source=source)
    with client.connect() as admin:
        had_room = admin.model(model).manifest.engine.lora is not None
        applied = admin.write("PUT", _path(model, name), new, Applied)
        for warning in applied.warnings:
            output.stderr().print(f"warning: {warning}")
        if not applied.changed:
            output.stderr().print(f"adapter {model}:{name} is served from there already")
            return
        how = "no engine is restarted" if had_room else "engines with room for adapters take over"
        output.stderr().print(f"adapter {model}:{name}: revision {applied.revision}, {how}")
        view = _until_loaded(admin, model, name, wait)
    if view.engines == 0:
        output.stderr().print(f"model {model} has no engine now; each new one loads the adapter")
    else:
        output.stderr().print(f"loaded in {view.loaded} of {view.engines} engines")


@app.command("rm")
def rm(model: ModelArgument, name: Name) -> None:
    """Take an adapter out of service; the model and its engines stay."""
    with client.connect() as admin:
        admin.remove(_path(model, name))
    output.stderr().print(f"adapter {model}:{name} removed; no engine is restarted")


@app.command("list")
def list_(model: ModelArgument, how: OutputOption = Format.TABLE) -> None:
    """List a model's adapters, and in how many of its engines each is loaded."""
    with client.connect() as admin:
        found = _views(admin, model)
    rows = [
        [one.served, f"{one.loaded}/{one.engines}", one.source, one.error or ""] for one in found
    ]
    output.print_items(found, ["SERVED AS", "LOADED", "SOURCE", "ERROR"], rows, how)


def _until_loaded(admin: AdminClient, model: str, name: str, wait_s: float) -> AdapterView:
    """Follows the adapter until all engines have it.

    Raises:
        NotLoadedError: If one cannot load it, or takes too long.
    """
    deadline_s = time.monotonic() + wait_s
    while True:
        view = next(one for one in _views(admin, model) if one.name == name)
        if view.error is not None:
            raise NotLoadedError(
                f"{view.served} cannot be loaded: {view.error}; the model serves on", hint=view.hint
            )
        wanted = admin.model(model).engines_wanted
        if view.loaded == view.engines and (view.engines or not wanted):
            return view
        if time.monotonic() >= deadline_s:
            raise NotLoadedError(
                f"{view.served} is loaded in {view.loaded} of {max(view.engines, wanted)} engines "
                f"after {wait_s:g} s",
                hint=f"`penstock adapter list {model}` shows how far they are",
            )
        time.sleep(POLL_S)


def _views(admin: AdminClient, model: str) -> list[AdapterView]:
    return admin.read(f"/models/{model}/adapters", Items[AdapterView]).items


def _path(model: str, name: str) -> str:
    return f"/models/{model}/adapters/{name}"
