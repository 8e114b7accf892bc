"""The node cache of this machine, as the command line opens it."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from models.cache import NodeCache
from models.secrets import Secrets
from serving.settings import Settings, named_secrets

CacheDirOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the node cache; by default that of `penstock up` here."),
]


class NodeSettings(Settings):
    """What `penstock pull` and `penstock cache` read of a node's settings."""

    data_dir: Path = Path(".penstock")
    cache_dir: Path | None = None
    cache_gib: float | None = Field(default=None, gt=0)
    secrets_dir: Path | None = None


def open_cache(folder: Path | None) -> NodeCache:
    """The cache of a folder, or of this machine's settings."""
    settings = NodeSettings.load()
    bound = None if settings.cache_gib is None else int(settings.cache_gib * 2**30)
    return NodeCache(folder or settings.cache_dir or settings.data_dir / "cache", bound)


def open_secrets() -> Secrets:
    """The named secrets of this machine's settings."""
    settings = NodeSettings.load()
    return named_secrets(settings.secrets_dir or settings.data_dir / "secrets")
