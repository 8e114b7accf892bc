"""Folders of LoRA adapters and base models with nothing but the right headers."""

import json
import struct
from pathlib import Path
from typing import Any

LAYER = "model.layers.0.self_attn.o_proj"


def write_tensors(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of bytes, one for each value."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 1
        for width in shape:
            size *= width
        header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def write_base(folder: Path, width: int = 32, layer: str = LAYER) -> Path:
    """A model with one layer of this width in and out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"]}))
    write_tensors(folder / "model.safetensors", {f"{layer}.weight": (width, width)})
    return folder


def write_adapter(
    folder: Path, *, rank: int = 8, width: int = 32, layer: str = LAYER, **config: Any
) -> Path:
    """An adapter of that layer."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["o_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    names = f"base_model.model.{layer}"
    shapes = {f"{names}.lora_A.weight": (rank, width), f"{names}.lora_B.weight": (width, rank)}
    write_tensors(folder / "adapter_model.safetensors", shapes)
    return folder
