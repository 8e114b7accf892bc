"""Manifests in files: one or many in a file or a folder, and how one is written back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from models.errors import ManifestError
from models.manifest import Manifest, parse_manifest

SUFFIXES = (".yaml", ".yml")


def load_manifests(path: Path) -> list[Manifest]:
    """Reads all manifests of a YAML file, or of all YAML files right below a folder.

    Raises:
        ManifestError: If something cannot be read or is no valid manifest, naming its file; if
            there is none, or two of one name.
    """
    if not path.is_dir():
        return _distinct([(path, manifest) for manifest in _read(path)])
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise ManifestError(f"{path} holds no *.yaml", hint="name a file, or another folder")
    found = []
    for file in files:
        try:
            found += [(file, manifest) for manifest in _read(file)]
        except ManifestError as exc:
            raise type(exc)(f"{file.name}: {exc}", param=exc.param, hint=exc.hint) from exc
    return _distinct(found)


def to_yaml(manifest: Manifest) -> str:
    """A manifest as an operator would write it: without what is said by default."""
    head = {"apiVersion": manifest.apiVersion, "kind": manifest.kind, "name": manifest.name}
    rest = manifest.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(head | rest, sort_keys=False, allow_unicode=True, width=100)


def parse_yaml(text: str, name: str) -> list[Manifest]:
    """Reads all manifests of a YAML text; `name` is for the errors.

    Raises:
        ManifestError: If it is not YAML, or holds something else.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as exc:
        mark, problem = getattr(exc, "problem_mark", None), getattr(exc, "problem", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise ManifestError(f"{name} is not valid YAML: {problem or 'unreadable'}{where}") from exc
    except (ValueError, RecursionError) as exc:  # control characters, bottomless nesting
        raise ManifestError(f"{name} is not valid YAML") from exc
    if not documents:
        raise ManifestError(f"{name} holds no manifest")
    for document in documents:
        _refuse_entry(document)
    return [parse_manifest(document) for document in documents]


def _read(path: Path) -> list[Manifest]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ManifestError(
            f"cannot read {path}", hint="check the path and its permissions"
        ) from exc
    return parse_yaml(text, str(path))


def _refuse_entry(document: Any) -> None:
    if isinstance(document, Mapping) and document.get("kind") == "CatalogEntry":
        name = document.get("name")
        raise ManifestError(
            f"{name} is an entry of the catalog, and no manifest",
            param="kind",
            hint=f"`penstock deploy {name}` takes it from the catalog; "
            f"`penstock catalog {name} --output json` shows its manifests",
        )


def _distinct(found: list[tuple[Path, Manifest]]) -> list[Manifest]:
    files: dict[str, Path] = {}
    for file, manifest in found:
        if manifest.name in files:
            raise ManifestError(
                f"{files[manifest.name].name} and {file.name} both hold {manifest.name}",
                param="name",
            )
        files[manifest.name] = file
    return [manifest for _, manifest in found]
