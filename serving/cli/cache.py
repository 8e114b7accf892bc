"""`penstock cache`: what this node keeps of fetched weights."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from models.cache import Cached, NodeCache
from models.cache_download import CorruptError
from models.errors import BadRequestError, NotFoundError
from serving.cli import output
from serving.cli.node_cache import CacheDirOption, open_cache
from serving.cli.output import Format, OutputOption

app = typer.Typer(help="Show and change what this node keeps of fetched weights.")

Which = Annotated[
    list[str] | None, typer.Argument(help="Keys or sources, as `penstock cache list` shows them.")
]


@app.command("list")
def list_(cache_dir: CacheDirOption = None, how: OutputOption = Format.TABLE) -> None:
    """List the models in the cache, the longest unused first."""
    cache = open_cache(cache_dir)
    found = cache.snapshots()
    if how is Format.JSON:
        output.print_json({"items": [_document(one) for one in found]})
        return
    rows = [
        (
            one.key,
            f"{one.record.size / 2**20:.1f} MiB",
            str(len(one.record.files)),
            output.age(datetime.fromtimestamp(one.used_at, UTC)),
            "yes" if one.in_use else "no",
            one.record.source,
        )
        for one in found
    ]
    columns = ("key", "size", "files", "unused", "in use", "source")
    output.print_items([], columns, rows, how)
    output.stderr().print(f"{cache.used_bytes() / 2**20:.1f} MiB on the disk")


@app.command("rm")
def remove(
    which: Which = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All models that are not in use.")
    ] = False,
    cache_dir: CacheDirOption = None,
) -> None:
    """Remove models from the cache, and what interrupted fetches left."""
    cache = open_cache(cache_dir)
    if bool(which) == everything:
        raise BadRequestError("name models, or --all", hint="`penstock cache list`")
    freed = 0
    chosen = [c for c in cache.snapshots() if not c.in_use] if everything else _find(cache, which)
    for one in chosen:
        freed += cache.remove(one.key)
    if everything:
        freed += cache.clean()
    output.stderr().print(f"removed {len(chosen)} model(s), {freed / 2**20:.1f} MiB")


@app.command("verify")
def verify(which: Which = None, cache_dir: CacheDirOption = None) -> None:
    """Read models again and compare; broken files are dropped, and fetched at the next use."""
    cache = open_cache(cache_dir)
    broken = []
    chosen = _find(cache, which) if which else cache.snapshots()
    for one in chosen:
        for found in cache.verify(one.key):
            broken.append(found)
            output.stderr().print(f"broken: {found.path} of {found.key}")
    if broken:
        raise CorruptError(
            f"{len(broken)} file(s) were broken, and are dropped",
            hint="`penstock pull` fetches them now; else the next start does",
        )
    output.stderr().print(f"{len(chosen)} model(s) are as they were fetched")


def _find(cache: NodeCache, which: list[str] | None) -> list[Cached]:
    """The snapshots of keys or sources.

    Raises:
        NotFoundError: Naming the first that is not there.
    """
    found = cache.snapshots()
    chosen = []
    for name in which or []:
        hits = [one for one in found if name == one.key or one.record.source.startswith(name)]
        if not hits:
            raise NotFoundError(f"the cache has no {name}", hint="`penstock cache list`")
        chosen += [one for one in hits if one not in chosen]
    return chosen


def _document(one: Cached) -> dict[str, object]:
    return {
        "key": one.key,
        "source": one.record.source,
        "bytes": one.record.size,
        "files": len(one.record.files),
        "fetched_at": datetime.fromtimestamp(one.record.fetched_at, UTC).isoformat(),
        "used_at": datetime.fromtimestamp(one.used_at, UTC).isoformat(),
        "in_use": one.in_use,
    }
