"""Sources of weights: what is served, and how a broken folder is told."""

import json
import struct
from pathlib import Path

import pytest

from models import sources
from models.errors import SourceError


def write_model(folder: Path, *, payload: int = 16) -> Path:
    """A folder that has the shape of a model, with one tensor of `payload` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"]}))
    header = json.dumps(
        {"w": {"dtype": "U8", "shape": [payload], "data_offsets": [0, payload]}}
    ).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(payload)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_local_folder_is_served_in_place(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    assert sources.resolve(f"file://{folder}", tmp_path / "cache") == folder


def test_builtin_guide_is_a_whole_model(tmp_path: Path) -> None:
    assert sources.resolve("builtin://guide", tmp_path).name == "guide"


def test_unknown_builtin_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        sources.resolve("builtin://gpt", tmp_path)
    assert "builtin://guide" in str(caught.value.hint)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a folder"):
        sources.resolve(f"file://{tmp_path}/none", tmp_path)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(SourceError, match=r"no .*safetensors"):
        sources.resolve(f"file://{folder}", tmp_path)


@pytest.mark.parametrize("config", ["", "{", "[]", "{}", '{"architectures": []}'])
def test_broken_config_is_refused(tmp_path: Path, config: str) -> None:
    folder = write_model(tmp_path)
    (folder / "config.json").write_text(config)
    with pytest.raises(SourceError, match=r"config\.json"):
        sources.resolve(f"file://{folder}", tmp_path)


def test_cut_weights_are_refused_with_both_sizes(tmp_path: Path) -> None:
    folder = write_model(tmp_path, payload=4096)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SourceError, match="is cut"):
        sources.resolve(f"file://{folder}", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 64, struct.pack("<Q", 4) + b"nope"])
def test_garbage_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(SourceError, match="broken header"):
        sources.resolve(f"file://{folder}", tmp_path)
