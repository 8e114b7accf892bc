"""`penstock deploy`: from a manifest or a source to a model that tenants can call."""

import difflib
from pathlib import Path
from typing import Annotated

import typer

from models.errors import ModelNotFoundError, PenstockError
from models.manifest import Goal, Manifest
from models.manifest_files import to_yaml
from serving.cli import client, output
from serving.cli.client import AdminClient
from serving.cli.follow import Follower
from serving.cli.wanted import entry_of, from_catalog, manifests_of
from serving.protocol import ModelState
from serving.views import Applied, ModelView


def deploy(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Name in the catalog, hf://org/name@revision, s3://bucket/prefix, gs://..., "
            "https://host/model.tar.gz, file:///folder or builtin://guide."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Manifest in YAML, or a folder of manifests."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name for a source; by default made from it.")
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(help="Variant of the catalog's model, as h200; by default by the pools."),
    ] = None,
    profile: Annotated[
        Goal | None,
        typer.Option(help="Tune the catalog's model for this, in place of its usual numbers."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would change, as a diff.")
    ] = False,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate",
            help="First replay the model's own recorded demand under the new manifest, show what "
            "would have changed, and ask.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Annotated[
        bool,
        typer.Option(
            help="Wait until the model is ready, or asleep with its weights at hand where min is 0."
        ),
    ] = True,
    timeout_s: Annotated[float, typer.Option(min=1.0, help="Seconds to wait at most.")] = 600.0,
) -> None:
    """Deploy a model from the catalog, from manifests (-f) or straight from a source."""
    entry = entry_of(source, file, accelerator, profile)
    manifests = [] if entry is not None else manifests_of(source, file, name)
    console = output.stderr()
    with client.connect() as admin:
        if entry is not None:
            manifests = [from_catalog(entry, admin, accelerator, name, profile)]
        if dry_run:
            for manifest in manifests:
                _show_plan(admin, manifest)
            return
        if simulate:
            from serving.cli.rehearsal import gate  # the simulator: numpy and numba

            gate(admin, manifests, yes=yes)
        done: list[Applied] = []
        for manifest in manifests:
            try:
                done.append(apply(admin, manifest, find(admin, manifest.name)))
            except PenstockError:
                if done:
                    before = ", ".join(one.model for one in done)
                    console.print(f"deployed before that: {before}")
                raise
            say_applied(done[-1])
        if wait:
            for model in Follower(admin, console, timeout_s).wait(done):
                if model.state is ModelState.ASLEEP:
                    console.print(f"model {model.name} is asleep; the first request wakes it")
                else:
                    console.print(f"model {model.name} is {model.state}")


def find(admin: AdminClient, name: str) -> ModelView | None:
    """A deployed model, None where there is none."""
    try:
        return admin.model(name)
    except ModelNotFoundError:
        return None


def apply(admin: AdminClient, manifest: Manifest, current: ModelView | None) -> Applied:
    """Deploys a manifest over what the caller has seen, and over nothing else.

    Raises:
        ConflictError: If somebody else deployed meanwhile.
    """
    return admin.apply(manifest, if_revision=0 if current is None else current.revision)


def say_applied(applied: Applied) -> None:
    """Tells what a deploy did."""
    console = output.stderr()
    what = "deployed" if applied.changed else "is deployed like that already"
    console.print(f"model {applied.model} {what}, revision {applied.revision}")
    for warning in applied.warnings:
        console.print(f"warning: {warning}")


def diff(before: Manifest | None, after: Manifest, revision: int) -> str:
    """What a deploy would change, as a unified diff; empty for nothing."""
    old = [] if before is None else to_yaml(before).splitlines(keepends=True)
    new = to_yaml(after).splitlines(keepends=True)
    label = "nothing" if before is None else f"{after.name} revision {revision}"
    lines = difflib.unified_diff(old, new, label, f"{after.name} as it would be", n=100)
    return "".join(lines)


def _show_plan(admin: AdminClient, manifest: Manifest) -> None:
    current = find(admin, manifest.name)
    planned = admin.apply(manifest, dry_run=True)
    before = None if current is None else current.manifest
    revision = 0 if current is None else current.revision
    text = diff(before, planned.manifest or manifest, revision)
    if text:
        typer.echo(text, nl=False)
    else:
        output.stderr().print(f"model {manifest.name}: nothing would change")
    for warning in planned.warnings:
        output.stderr().print(f"warning: {warning}")
