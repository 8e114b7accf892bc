"""`penstock pull`: a model's weights to this node's cache, before anybody asks for them."""

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunningError
from typing import Annotated

import typer

from models import sources
from models.cache_progress import Progress
from models.catalog import entry_named
from models.errors import BadRequestError, NotFoundError, UnauthenticatedError, UnreachableError
from models.manifest import Manifest, parse_manifest
from serving.cli import client, output
from serving.cli.follow import Bars
from serving.cli.node_cache import CacheDirOption, open_cache, open_secrets
from serving.cli.wanted import name_of

POLL_S = 0.1


def pull(
    model: Annotated[
        str, typer.Argument(help="A source, a deployed model's name, or a name of the catalog.")
    ],
    endpoint: Annotated[
        str | None, typer.Option(help="Base URL of the hub or object store, for a source.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Name of the secret with the token, for a source.")
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option(help="Variant of the catalog's model; by default the first.")
    ] = None,
    cache_dir: CacheDirOption = None,
) -> None:
    """Fetch a model's weights into this node's cache; prints the folder they are in."""
    manifest = _manifest(model, endpoint, token, accelerator)
    console = output.stderr()
    access = manifest.weights.access(open_secrets(), code=manifest.engine.trust_remote_code)
    if not manifest.is_fetched:
        console.print(f"{manifest.source} is served in place; nothing is fetched")
    progress = Progress()
    cache = open_cache(cache_dir)
    with Bars(console) as bars, ThreadPoolExecutor(1) as pool:
        work = pool.submit(sources.have, manifest.source, access, cache, progress)
        try:
            while not work.done():
                try:
                    work.result(POLL_S)
                except StillRunningError:
                    bars.show(manifest.name, progress.done, progress.total)
            bars.show(manifest.name, progress.done, progress.total)
        except KeyboardInterrupt:
            progress.stop.set()
            console.print("given up; what came in is kept, and the next pull goes on from there")
            raise
    have = work.result()
    have.release()
    if progress.started:
        console.print(f"fetched {progress.fetched / 2**20:.1f} MiB")
    typer.echo(have.folder)


def _manifest(
    model: str, endpoint: str | None, token: str | None, accelerator: str | None
) -> Manifest:
    """What to fetch.

    Raises:
        NotFoundError: If neither the platform nor the catalog has a model of that name.
    """
    if "://" in model:
        weights = {"endpoint": endpoint, "token": f"${{secret:{token}}}" if token else None}
        given = {key: value for key, value in weights.items() if value is not None}
        return parse_manifest({"name": name_of(model), "source": model, "weights": given})
    if endpoint or token:
        raise BadRequestError(
            "--endpoint and --token go with a source only",
            hint="a manifest says them in weights.endpoint and weights.token",
        )
    try:
        with client.connect() as admin:
            return admin.model(model).manifest
    except (UnauthenticatedError, UnreachableError, NotFoundError):
        entry = entry_named(model)  # no platform, or it has no such model
    variant = entry.for_accelerator(accelerator) if accelerator else entry.variants[0]
    return entry.manifest(variant)
