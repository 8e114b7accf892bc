"""Which of vLLM's load formats reads a model's weights: by source, hardware and what is installed.

All of them read the node's copy. Streaming past it, straight from an object store, would save the
disk's write once, and cost each later start the network, the checksums and the constant path.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from models.manifest import Manifest

MODULES = {
    "runai_streamer": "runai_model_streamer",
    "fastsafetensors": "fastsafetensors",
    "instanttensor": "instanttensor",
}
"""Formats that need a package of their own, by its module."""

OBJECT_STORES = ("s3", "gs")


@cache
def installed_formats() -> frozenset[str]:
    """The formats whose package is installed beside the host's, which is the engine's too."""
    return frozenset(name for name, module in MODULES.items() if find_spec(module) is not None)


def formats_for(manifest: Manifest, folder: Path) -> frozenset[str]:
    """The formats that may be chosen for a start on this node.

    None beyond vLLM's own where another build runs the engine, for its packages are not those that
    are seen here; nor where the folder has Mistral's consolidated file, which vLLM tells from the
    others only while it chooses by itself.

    Args:
        manifest: The model.
        folder: Its weights on this node.
    """
    if manifest.resources.accelerator == "cpu" or manifest.engine.build is not None:
        return frozenset()
    if any(folder.glob("consolidated*.safetensors")):
        return frozenset()
    return installed_formats()


def load_format(manifest: Manifest, installed: frozenset[str]) -> str | None:
    """The format for a model, None for vLLM's own choice. Pure.

    The manifest's word counts. On a GPU, what streams many files at once into the device's memory
    is worth it, for large models most; on a CPU, vLLM's own mapping of the page cache is the
    fastest there is.
    """
    if manifest.engine.load_format is not None:
        return manifest.engine.load_format
    if manifest.resources.accelerator == "cpu" or manifest.weights.allow_pickle:
        return None
    streams = manifest.source.partition("://")[0] in OBJECT_STORES
    wanted: tuple[str, ...] = ("runai_streamer",) if streams else ()
    for name in (*wanted, "fastsafetensors", "instanttensor"):
        if name in installed:
            return name
    return None
