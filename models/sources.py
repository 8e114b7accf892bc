"""Where weights come from: reads a manifest's source, pins it, and has it on this node.

    builtin://guide                  in this package
    file:///folder                   a folder of the node; served in place, or copied (weights.copy)
    hf://org/name@revision           the Hugging Face hub; pinned to a commit
    s3://bucket/prefix               an S3 store of any vendor; pinned to the objects of one moment
    gs://bucket/prefix               Google Cloud Storage; pinned like that
    https://host/model.tar.gz        an archive; pinned by its SHA-256, else by the server's headers

A pinned source names one content for ever: `hf://org/name@COMMIT`, `s3://bucket/prefix#DIGEST`,
`https://...#sha256=HEX`. Hosts fetch what is pinned, or tell that it is gone.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.adapters import CONFIG as ADAPTER_CONFIG
from models.adapters import check_adapter
from models.cache import Lease, NodeCache, Wanted
from models.cache_progress import Progress
from models.errors import SourceError
from models.model_folder import check_folder
from models.pins import REMOTE_SCHEMES, is_pinned, refusing_others
from models.remotes.folder import LocalFolder
from models.remotes.hub import Hub
from models.remotes.listing import FetchError, Listing, Remote, Selection, is_pickle
from models.remotes.objects import Bucket, Door
from models.remotes.web import WebArchive, pin_of

BUILTIN_DIR = Path(__file__).parent / "demo"
BUILTINS = {"guide": BUILTIN_DIR / "guide"}

MAX_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Access:
    """How a source may be read, secrets looked up; see `models.manifest.WeightsSpec`."""

    door: Door = field(default_factory=Door)
    sha256: str | None = None
    selection: Selection = field(default_factory=Selection)
    copy: bool = False
    """Copy a local folder to the node's cache."""
    adapter: bool = False
    """It is a LoRA adapter, not a model."""

    @property
    def config_name(self) -> str:
        """The file that says what it is."""
        return ADAPTER_CONFIG if self.adapter else "config.json"

    def check(self, folder: Path) -> None:
        """Checks what has come in.

        Raises:
            SourceError: Naming what is missing or broken.
        """
        if self.adapter:
            check_adapter(folder)
        else:
            check_folder(folder, pickle=self.selection.pickle)


class Have:
    """A model's folder on this node; in use until `release`.

    Args:
        folder: The folder.
        lease: Of the cache, where it lies there.
        waited: Whether it had to be fetched, by this process or another one.
    """

    def __init__(self, folder: Path, lease: Lease | None = None, *, waited: bool = False) -> None:
        self.folder = folder
        self.waited = waited
        self._lease = lease

    def release(self) -> None:
        """It is not in use any more; may be called again."""
        if self._lease is not None:
            self._lease.release()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a source is, without its weights."""

    source: str
    """Pinned, where its kind can be."""
    config: dict[str, Any] | None
    """Its config.json; None where only a fetch tells (an archive, a folder of another machine)."""
    listing: Listing | None
    """Its files; None where that is not known here."""

    @property
    def weight_bytes(self) -> int | None:
        """Bytes of all files of weights; None where that is not known here."""
        if self.listing is None or self.listing.packed:
            return None
        files = self.listing.files
        return sum(f.size for f in files if f.path.endswith(".safetensors") or is_pickle(f.path))


def is_fetched(source: str, access: Access) -> bool:
    """Whether the source passes through the node cache."""
    scheme = source.partition("://")[0]
    return scheme in REMOTE_SCHEMES or (scheme == "file" and access.copy)


def check_local(source: str) -> None:
    """Checks a source as far as that is possible without fetching anything.

    Raises:
        SourceError: If a built-in model is unknown.
    """
    scheme, _, rest = source.partition("://")
    if scheme == "builtin":
        _builtin(rest)


def inspect(source: str, access: Access) -> Inspection:
    """Asks a source what it is, and pins it; blocking.

    Raises:
        SourceError: If it has not what is asked for, may not be read, or is no model.
        PlaceAwayError: If it does not answer.
    """
    scheme, _, rest = source.partition("://")
    match scheme:
        case "builtin":
            return _inspect_folder(source, _builtin(rest), access)
        case "file":
            return _inspect_folder(source, Path(rest), access)
        case "hf":
            repo, _, revision = rest.partition("@")
            commit = _hub(repo, revision, access).commit()
            return _inspect_remote(f"hf://{repo}@{commit}", _hub(repo, commit, access), access)
        case "s3" | "gs":
            location = rest.partition("#")[0]
            bucket = Bucket(scheme, location, access.door, access.selection)
            listing = bucket.listing()
            if is_pinned(source):
                refusing_others(source)(listing)
            pinned = f"{scheme}://{location}#{listing.digest}"
            return _inspect_remote(pinned, bucket, access, listing)
        case "http" | "https":
            url, _, pin = source.partition("#")
            listing = _web(url, pin, access).listing()
            if pin:
                refusing_others(source)(listing)
            sha256 = access.sha256 or pin.partition("sha256=")[2]
            pin = f"sha256={sha256}" if sha256 else f"pin={pin_of(listing)}"
            return Inspection(f"{url}#{pin}", None, listing)
    raise SourceError(f"unknown kind of source: {scheme}://", param="source")


def have(
    source: str,
    access: Access,
    cache: NodeCache,
    progress: Progress | None = None,
    keep: Iterable[str] = (),
) -> Have:
    """Makes a source available on this node and checks that it holds a model; blocking.

    One that is not pinned is pinned first. `keep` are keys of what must not give way to it.

    Raises:
        SourceError: If the source has not what is asked for, or is no servable model.
        CacheFullError, CorruptError, FetchCancelledError, PlaceAwayError: As the cache does.
    """
    scheme, _, rest = source.partition("://")
    if not is_fetched(source, access):
        folder = _builtin(rest) if scheme == "builtin" else Path(rest)
        if scheme not in ("builtin", "file"):
            raise SourceError(f"unknown kind of source: {scheme}://", param="source")
        access.check(folder)
        return Have(folder)
    progress = progress or Progress()
    lease = cache.ensure(wanted(source, access), progress, keep)
    try:
        access.check(lease.folder)
    except BaseException:
        lease.release()
        raise
    return Have(lease.folder, lease, waited=progress.started)


def wanted(source: str, access: Access) -> Wanted:
    """What the cache shall have for a source; one that is not pinned is pinned now.

    Raises:
        SourceError, PlaceAwayError: As `inspect` does.
    """
    scheme, _, rest = source.partition("://")
    if scheme == "file":
        source = f"{source}#{LocalFolder(Path(rest), access.selection).listing().digest}"
    elif not is_pinned(source):
        source = inspect(source, access).source
    return Wanted(
        key=key_of(source, access),
        source=source,
        open_remote=lambda: _open(source, access),
        selection=access.selection,
        accept=refusing_others(source),
        approve=access.check,
    )


def key_of(pinned: str, access: Access) -> str:
    """The name of a pinned source in the cache: readable, and the same on every node."""
    selection = access.selection
    identity = (pinned, access.door.endpoint or "", str(selection.pickle), str(selection.code))
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
    path = pinned.partition("://")[2].partition("#")[0].partition("@")[0]
    slug = re.sub(r"[^a-z0-9._]+", "-", path.lower()).strip("-._")[-60:].strip("-._")
    return f"{slug or 'model'}-{digest}"


def _open(pinned: str, access: Access) -> Remote:
    scheme, _, rest = pinned.partition("://")
    match scheme:
        case "hf":
            repo, _, revision = rest.partition("@")
            return _hub(repo, revision, access)
        case "s3" | "gs":
            return Bucket(scheme, rest.partition("#")[0], access.door, access.selection)
        case "file":
            return LocalFolder(Path(rest.rpartition("#")[0]), access.selection)
    url, _, pin = pinned.partition("#")
    return _web(url, pin, access)


def _hub(repo: str, revision: str, access: Access) -> Hub:
    door = access.door
    return Hub(repo, revision, access.selection, token=door.token, endpoint=door.endpoint)


def _web(url: str, pin: str, access: Access) -> WebArchive:
    sha256 = access.sha256 or pin.partition("sha256=")[2] or None
    return WebArchive(url, sha256=sha256, token=access.door.token)


def _inspect_folder(source: str, folder: Path, access: Access) -> Inspection:
    if not folder.is_dir():
        return Inspection(source, None, None)
    listing = LocalFolder(folder, access.selection).listing()
    return Inspection(source, _read_json(folder / access.config_name), listing)


def _inspect_remote(
    source: str, remote: Remote, access: Access, listing: Listing | None = None
) -> Inspection:
    listing, name = remote.listing() if listing is None else listing, access.config_name
    config = next((file for file in listing.files if file.path == name), None)
    if config is None:
        what = "an adapter" if access.adapter else "a model"
        raise FetchError(f"{source} has no {name}", param="source", hint=f"is it {what}?")
    if config.size > MAX_CONFIG_BYTES:
        raise FetchError(f"{source}: {name} has {config.size} bytes", param="source")
    try:
        fields = json.loads(b"".join(remote.read(config, 0)))
    except ValueError as exc:
        raise FetchError(f"{source}: {name} is not readable JSON", param="source") from exc
    if not isinstance(fields, dict):
        raise FetchError(f"{source}: {name} is no mapping", param="source")
    return Inspection(source, fields, listing)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        fields = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return fields if isinstance(fields, dict) else None


def _builtin(name: str) -> Path:
    try:
        return BUILTINS[name]
    except KeyError:
        known = ", ".join(f"builtin://{known}" for known in BUILTINS)
        raise SourceError(
            f"there is no built-in model {name!r}", param="source", hint=f"built in: {known}"
        ) from None
