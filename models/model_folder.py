"""Whether a folder holds a model that vLLM can load, all of it."""

import json
from pathlib import Path

from models.errors import SourceError
from models.remotes.listing import is_pickle

HALF = ("*.incomplete", "*.part", "*.partial", "*.crdownload", "*.aria2", "*.tmp")
"""Names that downloaders give to what they have not finished."""


def check_folder(folder: Path, *, pickle: bool = False) -> None:
    """Checks that a folder holds a configuration and weights that can be opened, all of them.

    Args:
        folder: The model's folder.
        pickle: Whether pickled weights will do; nothing of them is opened.

    Raises:
        SourceError: Naming what is missing or broken.
    """
    if not folder.is_dir():
        raise SourceError(
            f"{folder} is not a folder", param="source", hint="give an absolute path to the model"
        )
    config = folder / "config.json"
    try:
        architectures = json.loads(config.read_text("utf-8")).get("architectures")
    except FileNotFoundError as exc:
        raise SourceError(f"{folder} has no config.json", param="source") from exc
    except (OSError, ValueError, AttributeError) as exc:
        raise SourceError(f"{config} is not readable JSON", param="source") from exc
    if not architectures:
        raise SourceError(f"{config} names no architecture", param="source")
    if half := [path.name for mark in HALF for path in sorted(folder.glob(mark))]:
        raise SourceError(
            f"{folder} is half written: {half[0]} is not complete",
            param="source",
            hint="wait until whoever writes there is done, or fetch it again",
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and not (pickle and any(is_pickle(path.name) for path in folder.iterdir())):
        raise SourceError(
            f"{folder} has no *.safetensors weights",
            param="source",
            hint="pickled weights are not loaded; convert them to safetensors, or set "
            "weights.allow_pickle where the platform allows it",
        )
    for file in weights:
        _check_safetensors(file)
    _check_index(folder)


def _check_index(folder: Path) -> None:
    """Looks for the files that the index of sharded weights names."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    try:
        named = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SourceError(f"{index} is not a readable index", param="source") from exc
    missing = sorted(str(name) for name in named if not (folder / str(name)).exists())
    if missing:
        raise SourceError(
            f"{folder} is half written: {len(missing)} of {len(named)} files of weights are "
            f"missing, the first is {missing[0]}",
            param="source",
            hint="wait until whoever writes there is done, or fetch it again",
        )


def _check_safetensors(file: Path) -> None:
    """Compares the file's length with what its header promises (safetensors format, version 0)."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(size - 8, 100_000_000):
                raise SourceError(f"{file} has a broken header", param="source")
            header = json.loads(stream.read(length))
        end = max(
            (entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"),
            default=0,
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SourceError(f"{file} has a broken header", param="source") from exc
    if 8 + length + end != size:
        raise SourceError(
            f"{file} is cut: {size} bytes where its header promises {8 + length + end}",
            param="source",
            hint="fetch the file again",
        )
