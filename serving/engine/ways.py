"""How a launcher starts an engine, and whether it may: pure, but for a look at the memory."""

from pathlib import Path
from typing import Literal

from models.errors import UnavailableError
from serving.engine.launch_protocol import SpawnRequest

Way = Literal["fork", "standby", "exec"]


def choose_way(request: SpawnRequest, obstacle: str | None, *, has_standby: bool) -> Way:
    """How to start the engine: as asked, or by the fastest way that there is.

    Args:
        request: The engine.
        obstacle: Why no engine can be forked now, or None.
        has_standby: Whether a process waits to become an engine.

    Raises:
        UnavailableError: If it is to be forked and cannot be.
    """
    match request.mode:
        case "fork":
            if obstacle is not None:
                raise UnavailableError(
                    f"the engine cannot be forked: {obstacle}", hint="set engine.spawn"
                )
            return "fork"
        case "exec":
            return "exec"
        case "standby":
            return "standby" if has_standby else "exec"
        case "auto":
            if obstacle is None:
                return "fork"
            return "standby" if has_standby else "exec"


def check_memory(request: SpawnRequest, free_gib: float) -> None:
    """Is there memory for the engine?

    Raises:
        UnavailableError: If not.
    """
    if free_gib < request.memory_gib:
        raise UnavailableError(
            f"the engine needs {request.memory_gib:g} GiB of memory,"
            f" but {free_gib:.1f} GiB are free on this node",
            hint="stop another model, or lower resources.memory_gib",
        )


def free_memory_gib() -> float:
    """Memory that new processes can take without swapping (`MemAvailable` of proc(5))."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return kib / 2**20
