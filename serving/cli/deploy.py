"""`penstock deploy`: from a manifest or a source to a model that tenants can call."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from models.catalog import Entry, entry_named
from models.errors import BadRequestError, DeadlineError, ModelFailedError
from models.manifest import Manifest, load_manifest, parse_manifest
from serving.cli import client, output
from serving.cli.client import AdminClient
from serving.protocol import ModelState
from serving.views import ModelView

POLL_S = 0.25
LONGEST_NAME = 63


def deploy(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Name in the catalog, hf://org/name@revision, file:///folder or builtin://guide."
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Manifest of the model, in YAML.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name for a source; by default made from it.")
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(help="Variant of the catalog's model, as h200; by default by the pools."),
    ] = None,
    wait: Annotated[
        bool, typer.Option(help="Wait until the model is ready, or asleep where min is 0.")
    ] = True,
    timeout_s: Annotated[float, typer.Option(min=1.0, help="Seconds to wait at most.")] = 600.0,
) -> None:
    """Deploy a model from the catalog, from a manifest (-f) or straight from a source."""
    wanted = _entry(source, file, accelerator) or _manifest(source, file, name)
    console = output.stderr()
    with client.connect() as admin:
        manifest = (
            wanted
            if isinstance(wanted, Manifest)
            else _from_catalog(wanted, admin, accelerator, name)
        )
        applied = admin.apply(manifest)
        what = "deployed" if applied.changed else "is deployed like that already"
        console.print(f"model {applied.model} {what}, revision {applied.revision}")
        for warning in applied.warnings:
            console.print(f"warning: {warning}")
        if wait:
            model = _wait(admin, manifest, timeout_s, console.print)
            if model.state is ModelState.ASLEEP:
                console.print(f"model {model.name} is asleep; the first request wakes it")
            else:
                console.print(f"model {model.name} is {model.state}")


def name_of(source: str) -> str:
    """A model's name made from its source: the last part of its path, in allowed characters.

    Raises:
        BadRequestError: If nothing usable is left.
    """
    path = source.partition("://")[2].partition("@")[0].rstrip("/")
    plain = re.sub(r"[^a-z0-9._-]+", "-", path.rpartition("/")[2].lower())[:LONGEST_NAME]
    plain = plain.strip("._-")
    if not plain:
        raise BadRequestError(f"{source} gives no name", param="name", hint="give one with --name")
    return plain


def _entry(source: str | None, file: Path | None, accelerator: str | None) -> Entry | None:
    """The catalog's entry where the source is its name, else none.

    Raises:
        BadRequestError: If an accelerator is given beside something else.
        CatalogNotFoundError: If the catalog has no such name.
    """
    if source is not None and file is None and "://" not in source:
        if Path(source).suffix in (".yaml", ".yml"):
            raise BadRequestError(f"{source} is a file", hint=f"`penstock deploy -f {source}`")
        return entry_named(source)
    if accelerator is not None:
        raise BadRequestError(
            "--accelerator goes with a name of the catalog only",
            hint="a manifest says it in resources.accelerator",
        )
    return None


def _from_catalog(
    entry: Entry, admin: AdminClient, accelerator: str | None, name: str | None
) -> Manifest:
    """The manifest of the variant that was asked for, or that a pool of the platform runs.

    Raises:
        BadRequestError: If there is no such variant.
    """
    if accelerator is not None:
        variant = entry.for_accelerator(accelerator)
    else:
        variant = entry.for_pools([pool.name for pool in admin.status().pools])
    document = entry.manifest(variant).model_dump(mode="json", exclude_unset=True)
    return parse_manifest(document | ({"name": name} if name else {}))


def _manifest(source: str | None, file: Path | None, name: str | None) -> Manifest:
    if (source is None) == (file is None):
        raise BadRequestError(
            "give either a manifest or a source",
            hint="`penstock deploy -f model.yaml`, `penstock deploy hf://org/name`, or a name of "
            "`penstock catalog`",
        )
    if file is not None:
        if name is not None:
            raise BadRequestError("--name goes with a source only", hint="edit the manifest's name")
        return load_manifest(file)
    return parse_manifest({"name": name or name_of(source or ""), "source": source})


def _wait(
    admin: AdminClient, manifest: Manifest, timeout_s: float, say: Callable[[str], None]
) -> ModelView:
    """Follows a model's state to a good end.

    Raises:
        ModelFailedError: If its engines do not start.
        DeadlineError: If it takes too long.
    """
    deadline_s = time.monotonic() + timeout_s
    told = ""
    while True:
        model = admin.model(manifest.name)
        rests = manifest.scaling.min == 0 and model.state is ModelState.ASLEEP
        if model.state is ModelState.READY or rests:
            return model
        if model.state is ModelState.FAILED:
            raise ModelFailedError(
                f"model {model.name} failed: {model.reason}",
                hint=f"`penstock logs {model.name}` shows its engine's log",
            )
        now = f"model {model.name} is {model.state}" + (f": {model.reason}" if model.reason else "")
        if now != told:
            say(now)
            told = now
        if time.monotonic() >= deadline_s:
            raise DeadlineError(
                f"{now} after {timeout_s:.0f} s",
                hint="it goes on; follow it with `penstock status`",
            )
        time.sleep(POLL_S)
