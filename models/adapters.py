"""Whether a folder holds a LoRA adapter that fits its base model. Reads headers, never weights.

vLLM itself takes an adapter of another model without a word where their layers have the same names,
and answers nonsense; so shapes are compared here before it hears of it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import SourceError
from models.model_folder import HALF

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_HEADER_BYTES = 100_000_000

UNSUPPORTED = {
    "use_dora": "DoRA", "lora_bias": "a bias in LoRA", "layer_replication": "layer replication",
    "alora_invocation_tokens": "Activated LoRA", "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA",
}  # fmt: skip
"""What vLLM does not run, by the field of the configuration that asks for it."""

Shapes = Mapping[str, tuple[int, ...]]


class AdapterError(SourceError):
    """A LoRA adapter that cannot be served with this model."""

    code = "invalid_adapter"


def check_config(config: Mapping[str, Any], max_rank: int) -> None:
    """Checks what an adapter says of itself.

    Args:
        config: Its adapter_config.json.
        max_rank: What the engine has room for.

    Raises:
        AdapterError: If it is no LoRA, of too high a rank, or of a kind that vLLM does not run.
    """
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise AdapterError(f"the adapter is of type {kind}; only LORA is served", param="source")
    for field, what in UNSUPPORTED.items():
        if config.get(field):
            raise AdapterError(
                f"the adapter uses {what}, which vLLM does not run",
                param="source",
                hint="train it as a plain LoRA, or merge it into its base model",
            )
    rank = max(_ranks(config), default=0)
    if rank < 1:
        raise AdapterError(f"{CONFIG} names no rank (r)", param="source")
    if rank > max_rank:
        raise AdapterError(
            f"the adapter has rank {rank}, the model's engines have room for {max_rank}",
            param="source",
            hint=f"set engine.lora.max_rank to at least {rank} (a rolling revision), or use an "
            "adapter of a lower rank",
        )


def check_adapter(folder: Path, base: Path | None = None, max_rank: int | None = None) -> None:
    """Checks a folder's configuration and weights, all of them, against the model's.

    Args:
        folder: The adapter's.
        base: The model's folder; None: only the adapter itself is looked at.
        max_rank: What the engine has room for; None: any.

    Raises:
        AdapterError: Naming what is missing, broken or does not fit.
    """
    if not folder.is_dir():
        raise AdapterError(
            f"{folder} is not a folder", param="source", hint="give an absolute path to the adapter"
        )
    if half := [path.name for mark in HALF for path in sorted(folder.glob(mark))]:
        raise AdapterError(
            f"{folder} is half written: {half[0]} is not complete",
            param="source",
            hint="wait until whoever writes there is done, or fetch it again",
        )
    config = _config(folder / CONFIG)
    check_config(config, max_rank or 2**31)
    weights = folder / WEIGHTS
    if not weights.exists():
        raise AdapterError(
            f"{folder} has no {WEIGHTS}",
            param="source",
            hint="pickled adapters are not loaded; save it as safetensors",
        )
    shapes = _shapes(weights)
    if base is not None:
        known: dict[str, tuple[int, ...]] = {}
        for file in sorted(base.glob("*.safetensors")):
            known |= _shapes(file)
        _check_fit(shapes, known)


def _check_fit(adapter: Shapes, base: Shapes) -> None:
    """Compares each pair of matrices with the layer that it changes, where the base has that name.

    Layers that a checkpoint keeps in another form (quantized, fused) are not compared.
    """
    found = compared = 0
    layers = {name.rpartition(".weight")[0] or name for name in base}
    for name, shape in adapter.items():
        for part, axis in (("lora_A", 1), ("lora_B", 0)):
            layer, mark, _ = name.partition(f".{part}.")
            if not mark or len(shape) != 2:
                continue
            layer = layer.removeprefix("base_model.model.")
            found += 1
            wide = base.get(f"{layer}.weight")
            if wide is None:
                compared += any(known.startswith(f"{layer}.") for known in layers)
                continue
            compared += 1
            if len(wide) == 2 and wide[axis] != shape[axis]:
                raise AdapterError(
                    f"the adapter is of another base model: it has width {shape[axis]} at {layer}, "
                    f"the model {wide[axis]}",
                    param="source",
                    hint="base_model_name_or_path in its adapter_config.json says of which",
                )
    if not found:
        raise AdapterError(f"{WEIGHTS} holds no LoRA matrices", param="source")
    if not compared and any(name.endswith("_proj.weight") for name in base):
        raise AdapterError(
            "the adapter is of another base model: the model has none of the layers it changes",
            param="source",
            hint="base_model_name_or_path in its adapter_config.json says of which",
        )


def _ranks(config: Mapping[str, Any]) -> list[int]:
    pattern = config.get("rank_pattern")
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    return [rank for rank in ranks if isinstance(rank, int)]


def _config(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as exc:
        raise AdapterError(
            f"{path.parent} has no {CONFIG}", param="source", hint="is it a LoRA adapter?"
        ) from exc
    except (OSError, ValueError) as exc:
        raise AdapterError(f"{path} is not readable JSON", param="source") from exc
    if not isinstance(fields, dict):
        raise AdapterError(f"{path} is no mapping", param="source")
    return fields


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a file by name; its length is compared with what its header promises."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(size - 8, MAX_HEADER_BYTES):
                raise AdapterError(f"{file} has a broken header", param="source")
            header = json.loads(stream.read(length))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise AdapterError(f"{file} has a broken header", param="source") from exc
    if 8 + length + end != size:
        raise AdapterError(
            f"{file} is cut: {size} bytes where its header promises {8 + length + end}",
            param="source",
            hint="fetch the file again",
        )
    return shapes
