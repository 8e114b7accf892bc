"""What a deploy looks at of a model's LoRA adapters before it becomes a revision."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from models import sources
from models.adapters import AdapterError, check_adapter, check_config
from models.adapters_spec import LoraSpec
from models.errors import SourceError, UnavailableError
from models.manifest import AdapterSpec, Manifest
from models.pins import is_pinned
from models.remotes.listing import PlaceAwayError
from models.sources import Access
from serving.controller.intake import Admitted

PATIENCE_S = 25.0
"""For all of them; less than a client's patience with the admin API."""


async def admit_adapters(
    admitted: Admitted, access: Access, known: Collection[AdapterSpec]
) -> Admitted:
    """Pins the adapters' sources, and refuses what cannot be served with the model.

    Args:
        admitted: The manifest, looked at but for its adapters.
        access: How the model's own source is read.
        known: Adapters that were looked at before; their sources are not asked again.

    Raises:
        AdapterError: Naming the adapter in `param`.
        UnavailableError: If a source does not answer, and is not pinned yet.
    """
    manifest = admitted.manifest
    if not manifest.adapters:
        return admitted
    reading = replace(access, adapter=True, sha256=None, copy=False)
    try:
        async with asyncio.timeout(PATIENCE_S):
            looked = [
                (spec, ())
                if spec in known and not spec.source.startswith("file://")
                else await asyncio.to_thread(_look, spec, manifest, reading)
                for spec in manifest.adapters
            ]
    except TimeoutError as exc:
        raise UnavailableError(
            "the adapters' sources do not answer in time",
            param="adapters",
            hint="check the network of the controller, or name commits",
        ) from exc
    return Admitted(
        manifest.model_copy(update={"adapters": tuple(spec for spec, _ in looked)}),
        (*admitted.warnings, *(said for _, told in looked for said in told)),
    )


def _look(
    spec: AdapterSpec, manifest: Manifest, access: Access
) -> tuple[AdapterSpec, tuple[str, ...]]:
    lora = manifest.engine.lora or LoraSpec()
    param = f"adapters.{spec.name}"
    try:
        found = sources.inspect(spec.source, access)
        if found.config is not None:
            check_config(found.config, lora.max_rank)
        if spec.source.startswith("file://"):
            folder = Path(spec.source.removeprefix("file://"))
            if not folder.is_dir():  # it may be there on the hosts
                return spec, (f"{param}: {folder} is no folder, as seen from the controller",)
            check_adapter(folder, _base(manifest), lora.max_rank)
    except PlaceAwayError as exc:
        if not is_pinned(spec.source):
            raise
        return spec, (f"{param}: the source was not looked at: {exc or 'no answer'}",)
    except SourceError as exc:
        advice = f"; {exc.hint}" if exc.hint else ""  # an answer bears no hint of its own
        raise AdapterError(f"{param}: {exc}{advice}", param=param) from exc
    return spec.model_copy(update={"source": found.source}), ()


def _base(manifest: Manifest) -> Path | None:
    """The model's folder, where it lies here."""
    scheme, _, rest = manifest.source.partition("://")
    folder = sources.BUILTINS.get(rest) if scheme == "builtin" else Path(rest)
    return folder if scheme in ("builtin", "file") and folder and folder.is_dir() else None
