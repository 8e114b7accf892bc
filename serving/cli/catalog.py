"""`penstock catalog`: the models that can be deployed by name."""

from typing import Annotated

import typer

from models import catalog as shelf
from models.catalog import Entry
from serving.cli import output
from serving.cli.output import Format, OutputOption


def catalog(
    name: Annotated[
        str | None, typer.Argument(help="Show one model with the manifests of its variants.")
    ] = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """List the models that `penstock deploy NAME` knows, or show one."""
    if name is None:
        output.print_items(shelf.entries(), *_rows(shelf.entries()), how)
        return
    entry = shelf.entry_named(name)
    if how is Format.JSON:
        output.print_json(_shown(entry))
    else:
        columns = ("pool", "weights", "context", "slots", "source")
        output.print_items([], columns, _variants(entry), how)
        console = output.stderr()
        console.print(f"{entry.title}, {entry.task}; licence: {entry.licence}")
        if entry.gated:
            console.print("gated: accept the licence on the hub and set HF_TOKEN")
        if entry.chat_template:
            console.print(entry.chat_template)


def _rows(entries: tuple[Entry, ...]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    columns = ("name", "task", "parameters", "pools", "licence", "gated", "source")
    return columns, [
        (
            entry.name,
            entry.task.value,
            f"{entry.architecture.parameters / 1e9:.4g}B",
            ",".join(variant.resources.pool for variant in entry.variants),
            entry.licence,
            "yes" if entry.gated else "no",
            entry.source,
        )
        for entry in entries
    ]


def _variants(entry: Entry) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for variant in entry.variants:
        manifest = entry.manifest(variant)
        limit = manifest.engine.max_model_len or entry.architecture.max_context
        slots = str(manifest.engine.max_num_seqs)
        pool = variant.resources.pool
        rows.append((pool, variant.weights.value, str(limit), slots, manifest.source))
    return rows


def _shown(entry: Entry) -> dict[str, object]:
    manifests = [
        entry.manifest(variant).model_dump(mode="json", exclude_unset=True)
        for variant in entry.variants
    ]
    return entry.model_dump(mode="json", exclude_unset=True) | {"manifests": manifests}
