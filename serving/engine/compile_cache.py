"""Where the engines of a node keep what they compiled, so that the next start need not.

    ROOT/compiled/MODEL/KEY/        vLLM's cache root for engines of this key

vLLM's own cache below that knows its version and configuration, but neither the machine's
instruction set nor what nobody will use again: a model that is gone, a version that was replaced.
So the key says the machine and the version, and `prune` sees to the rest.
Models that do not compile (`enforce_eager`) have no such folder.
"""

import hashlib
import json
import platform
import shutil
from pathlib import Path

from models.manifest import Manifest
from serving.engine import versions
from serving.engine.ageing import by_age

VARIABLE = "VLLM_CACHE_ROOT"
FOLDER = "compiled"
KEPT = 4
"""Keys of one model that are kept: a rollout's two revisions, and the two before."""


def compiles(manifest: Manifest) -> bool:
    """Whether engines of the model compile; by default they do so on GPUs alone."""
    eager = manifest.engine.enforce_eager
    return manifest.resources.accelerator != "cpu" if eager is None else not eager


def key(manifest: Manifest, weights: Path, machine: str) -> str:
    """What engines have to have in common to use each other's artifacts.

    Args:
        manifest: The model: its engine arguments and accelerators count, its scaling does not.
        weights: Their folder on this node; vLLM's own key contains the path.
        machine: What code is compiled for; see `machine_of_this_node`.
    """
    engine = manifest.engine.model_dump(mode="json", exclude={"spawn"})
    resources = manifest.resources.model_dump(mode="json", exclude={"memory_gib"})
    told = json.dumps([engine, resources, str(weights), machine], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def folder(root: Path, manifest: Manifest, weights: Path, machine: str) -> Path | None:
    """The cache folder of the model's engines, made where it is missing; None: they do not compile.

    Raises:
        OSError: If it cannot be made.
    """
    if not compiles(manifest):
        return None
    found = root / FOLDER / manifest.name / key(manifest, weights, machine)
    found.mkdir(parents=True, exist_ok=True)
    found.touch()  # so that `prune` sees its use
    prune(found.parent)
    return found


def prune(of_model: Path) -> None:
    """Removes the keys of a model that were not used for the longest time, beyond KEPT."""
    for path in by_age(of_model.iterdir())[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def machine_of(architecture: str, cpuinfo: str) -> str:
    """Architecture and instruction set, from the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            flags = " ".join(sorted(value.split()))
            return f"{architecture}-{hashlib.sha256(flags.encode()).hexdigest()[:12]}"
    return architecture


def machine_of_this_node() -> str:
    """Names what this node's code is compiled for, and by which build of the platform's own; GPUs
    and other builds are named by the manifest."""
    machine = machine_of(platform.machine(), Path("/proc/cpuinfo").read_text("utf-8"))
    return f"{machine}, {versions.installed()}"
