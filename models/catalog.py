"""The catalog: models that people serve, each with its manifests for the hardware it runs on.

An entry is a file `catalog/NAME.yaml`: what the model is, and variants of its manifest for kinds
of hardware. A plain manifest is an entry too, with one variant. An entry's `config` is the part
of the model's config.json that the sizing planner needs; the weights are not here.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from models.architecture import Architecture
from models.config_fields import load_config
from models.config_json import read_architecture, weights_of
from models.errors import BadRequestError, ManifestError, NotFoundError
from models.faults import faults_of
from models.manifest import EngineSpec, Manifest, Name, Source, parse_manifest
from models.precision import Precision
from models.resources_spec import ResourcesSpec
from models.scaling_spec import ScalingSpec
from models.sources import BUILTINS
from models.strict import Strict

FOLDER = Path(__file__).parent / "catalog"


class Task(StrEnum):
    """What a model is asked for."""

    CHAT = "chat"
    EMBED = "embed"
    RERANK = "rerank"


class CatalogError(ManifestError):
    """A file of the catalog that cannot be accepted."""

    code = "invalid_catalog"


class CatalogNotFoundError(NotFoundError):
    """A name that the catalog does not have."""

    code = "not_in_catalog"


class Published(Strict):
    """What the model's authors say of its size; held against what `config` gives."""

    parameters_b: float = Field(gt=0)
    """All parameters in 10^9."""
    active_b: float | None = Field(default=None, gt=0)
    """Parameters that one token passes, in 10^9, for mixtures of experts."""
    source: str
    """Where the numbers are from."""


class Variant(Strict):
    """One way to run the model: what differs from the entry."""

    weights: Precision
    """How the weights of this source are stored."""
    source: Source | None = None
    """Where the weights are; by default the entry's."""
    engine: EngineSpec = EngineSpec()
    """Fields that go over the entry's."""
    resources: ResourcesSpec
    """What one engine needs."""

    @property
    def cache(self) -> Precision:
        """How keys and values are stored."""
        return Precision.FP8 if self.engine.args.get("kv_cache_dtype") == "fp8" else Precision.BF16


class Entry(Strict):
    """One model of the catalog."""

    apiVersion: Literal["penstock/v1"]
    """Version of this format."""
    kind: Literal["CatalogEntry"]
    """What the document describes."""
    name: Name
    """Its name in the catalog, and that of its manifest."""
    title: str
    """The authors' name of it."""
    task: Task
    """What it is asked for."""
    licence: str
    """Name of its licence."""
    gated: bool = False
    """Whether the repository asks to accept the licence first, with a token."""
    chat_template: str = ""
    """What to know of its chat template and parsers."""
    published: Published | None = None
    """Its size as published."""
    config: dict[str, Any]
    """The fields of its config.json that decide its size."""
    source: Source
    """Where its weights are."""
    engine: EngineSpec = EngineSpec()
    """How vLLM runs it, on all hardware."""
    scaling: ScalingSpec = ScalingSpec()
    """How many engines, and when."""
    variants: tuple[Variant, ...] = Field(min_length=1)
    """Ways to run it, the recommended one first."""

    @model_validator(mode="after")
    def _has_one_variant_a_pool(self) -> Self:
        pools = [variant.resources.pool for variant in self.variants]
        if len(pools) != len(set(pools)):
            raise ValueError(f"two variants share a pool: {', '.join(pools)}")
        return self

    @property
    def architecture(self) -> Architecture:
        """What its config.json describes; where it embeds or ranks, it generates nothing."""
        model = read_architecture(self.config)
        return model if self.task is Task.CHAT else replace(model, generates=False)

    def manifest(self, variant: Variant) -> Manifest:
        """The manifest of one variant.

        Raises:
            ManifestError: If the two together are no manifest.
        """
        engine = _set_fields(self.engine) | _set_fields(variant.engine)
        args = self.engine.args | variant.engine.args
        document: dict[str, Any] = {
            "name": self.name,
            "source": variant.source or self.source,
            "resources": _set_fields(variant.resources),
        }
        if engine or args:
            document["engine"] = engine | ({"args": args} if args else {})
        if self.scaling.model_fields_set:
            document["scaling"] = _set_fields(self.scaling)
        return parse_manifest(document)

    def for_accelerator(self, accelerator: str) -> Variant:
        """The first variant for a kind of hardware, or for a pool of it (`h200x8`).

        Raises:
            BadRequestError: If it has none.
        """
        wanted = accelerator.lower()
        for variant in self.variants:
            if wanted in (variant.resources.accelerator, variant.resources.pool):
                return variant
        raise BadRequestError(
            f"the catalog has no variant of {self.name} for {accelerator}",
            param="accelerator",
            hint=f"it has {', '.join(v.resources.pool for v in self.variants)}",
        )

    def for_pools(self, pools: Sequence[str]) -> Variant:
        """The first variant that one of the pools can run.

        Raises:
            BadRequestError: If none can.
        """
        for variant in self.variants:
            if variant.resources.pool in pools:
                return variant
        raise BadRequestError(
            f"no pool of this platform ({', '.join(pools) or 'it has none'}) runs {self.name}",
            param="accelerator",
            hint=f"its variants are for {', '.join(v.resources.pool for v in self.variants)}; "
            "choose one with --accelerator",
        )


def _set_fields(part: Strict) -> dict[str, Any]:
    return part.model_dump(mode="json", exclude_unset=True)


def load_entry(path: Path) -> Entry:
    """Reads one file of the catalog.

    Raises:
        CatalogError: If it cannot be read, or is no valid entry; names the file and the fields.
    """
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise CatalogError(f"{path} cannot be read as YAML") from exc
    if not isinstance(document, dict):
        raise CatalogError(f"{path} is not a mapping")
    try:
        if document.get("kind") == "Model":
            return _from_manifest(parse_manifest(document))
        entry = Entry.model_validate(document)
    except ValidationError as exc:
        faults = "; ".join(fault.named("entry") for fault in faults_of(exc))
        raise CatalogError(f"{path}: {faults}") from exc
    except BadRequestError as exc:
        raise CatalogError(f"{path}: {exc}", param=exc.param) from exc
    if entry.name != path.stem:
        raise CatalogError(f"{path} holds {entry.name!r}; the file must have its name")
    return entry


def _from_manifest(manifest: Manifest) -> Entry:
    """A plain manifest of a built-in model as an entry of one variant."""
    scheme, _, built_in = manifest.source.partition("://")
    if scheme != "builtin" or built_in not in BUILTINS:
        raise CatalogError(f"{manifest.source} is no built-in model; write a CatalogEntry")
    config = load_config(BUILTINS[built_in])
    return Entry(
        apiVersion="penstock/v1",
        kind="CatalogEntry",
        name=manifest.name,
        title=f"The built-in model {manifest.name}",
        task=Task.CHAT,
        licence="Apache-2.0",
        config=config,
        source=manifest.source,
        engine=manifest.engine,
        scaling=manifest.scaling,
        variants=(Variant(weights=weights_of(config), resources=manifest.resources),),
    )


@cache
def entries() -> tuple[Entry, ...]:
    """All models of the catalog, by name.

    Raises:
        CatalogError: If a file is broken.
    """
    return tuple(load_entry(path) for path in sorted(FOLDER.glob("*.yaml")))


def names() -> list[str]:
    """The names of all models of the catalog, without reading them."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def entry_named(name: str) -> Entry:
    """The entry of a name, in any case.

    Raises:
        CatalogNotFoundError: If the catalog has none.
        CatalogError: If its file is broken.
    """
    if name.lower() not in names():
        raise CatalogNotFoundError(
            f"the catalog has no model {name!r}",
            param="name",
            hint="`penstock catalog` lists what it has",
        )
    return load_entry(FOLDER / f"{name.lower()}.yaml")
