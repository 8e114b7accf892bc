"""Shared memory of engines with several processes: named so that the launcher can remove it.

Who creates shared memory unlinks it; who is killed does not, and its pages stay until the machine
restarts. So an engine names its segments after its scratch folder, and its launcher removes what
bears that name when the engine is gone.
"""

import contextlib
from multiprocessing import process, shared_memory
from pathlib import Path
from typing import Any

FOLDER = Path("/dev/shm")  # noqa: S108, where Linux has it; nothing is made here by path
RENDEZVOUS = "vllm_dist_*"
"""Files in the scratch folder after which vLLM's ranks on a CPU name what they share."""
RANDOM_CHARACTERS = 8


def name_after(scratch_dir: Path) -> None:
    """Has what is shared through Python in this process, and in its children, use such names."""
    current: Any = process.current_process()
    current._config["semprefix"] = f"/{_prefix(scratch_dir)}"
    python: Any = shared_memory
    python._SHM_NAME_PREFIX = f"/{_prefix(scratch_dir)}"
    python._SHM_SAFE_NAME_LENGTH = len(python._SHM_NAME_PREFIX) + RANDOM_CHARACTERS


def remove(scratch_dir: Path, folder: Path = FOLDER) -> None:
    """Removes what an engine that is gone has left; to be called before its scratch folder goes."""
    ours = _prefix(scratch_dir)
    rendezvous = (path.name for path in scratch_dir.glob(RENDEZVOUS))
    for name in (ours, f"sem.{ours}", *rendezvous):
        for left in folder.glob(f"{name}*"):
            with contextlib.suppress(OSError):
                left.unlink()


def rendezvous_of(scratch_dir: Path, name: str) -> str:
    """A rendezvous of ranks on one machine, for `torch.distributed`, named after the engine."""
    return f"file://{scratch_dir}/{_prefix(scratch_dir)}{name}"


def _prefix(scratch_dir: Path) -> str:
    return f"penstock-{scratch_dir.name}-"
