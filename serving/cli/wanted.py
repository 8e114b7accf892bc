"""What `penstock deploy` is asked for: manifests from the catalog, from files, from sources."""

import re
from pathlib import Path

from models.catalog import Entry, entry_named
from models.errors import BadRequestError
from models.manifest import LONGEST_NAME, Goal, Manifest, parse_manifest
from models.manifest_files import load_manifests
from models.profile import manifest_with_goal
from serving.cli.client import AdminClient


def name_of(source: str) -> str:
    """A model's name made from its source: the last part of its path, in allowed characters.

    Raises:
        BadRequestError: If nothing usable is left.
    """
    path = re.split(r"[@#?]", source.partition("://")[2])[0].rstrip("/")
    last = re.sub(r"\.(tar(\.\w+)?|tgz|zip)$", "", path.rpartition("/")[2].lower())
    plain = re.sub(r"[^a-z0-9._-]+", "-", last)[:LONGEST_NAME].strip("._-")
    if not plain:
        raise BadRequestError(f"{source} gives no name", param="name", hint="give one with --name")
    return plain


def entry_of(
    source: str | None,
    file: Path | None,
    accelerator: str | None,
    profile: Goal | None = None,
) -> Entry | None:
    """The catalog's entry where the source is its name, else none.

    Raises:
        BadRequestError: If an accelerator or a profile is given beside something else.
        CatalogNotFoundError: If the catalog has no such name.
    """
    if source is not None and file is None and "://" not in source:
        if Path(source).suffix in (".yaml", ".yml"):
            raise BadRequestError(f"{source} is a file", hint=f"`penstock deploy -f {source}`")
        return entry_named(source)
    if profile is not None:
        raise BadRequestError(
            "--profile goes with a name of the catalog only",
            hint="a manifest says it in `profile`",
        )
    if accelerator is not None:
        raise BadRequestError(
            "--accelerator goes with a name of the catalog only",
            hint="a manifest says it in resources.accelerator",
        )
    return None


def from_catalog(
    entry: Entry,
    admin: AdminClient,
    accelerator: str | None,
    name: str | None,
    profile: Goal | None = None,
) -> Manifest:
    """The manifest of the variant that was asked for, or that a pool of the platform runs; with a
    profile in place of the catalog's own numbers where one is named.

    Raises:
        BadRequestError: If there is no such variant.
    """
    if accelerator is not None:
        variant = entry.for_accelerator(accelerator)
    else:
        variant = entry.for_pools([pool.name for pool in admin.status().pools])
    manifest = entry.manifest(variant)
    if profile is not None:
        manifest = manifest_with_goal(manifest, profile)
    document = manifest.model_dump(mode="json", exclude_unset=True)
    return parse_manifest(document | ({"name": name} if name else {}))


def manifests_of(source: str | None, file: Path | None, name: str | None) -> list[Manifest]:
    """The manifests of a file or folder, or the one of a source.

    Raises:
        BadRequestError: If neither or both are given.
        ManifestError: If something is no manifest.
    """
    if (source is None) == (file is None):
        raise BadRequestError(
            "give either a manifest or a source",
            hint="`penstock deploy -f model.yaml`, `penstock deploy hf://org/name`, or a name of "
            "`penstock catalog`",
        )
    if file is not None:
        if name is not None:
            raise BadRequestError("--name goes with a source only", hint="edit the manifest's name")
        return load_manifests(file)
    return [parse_manifest({"name": name or name_of(source or ""), "source": source})]
