"""What an engine's run needs of its host."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from serving.engine.launcher_client import Launcher
from serving.engine.weights import Weights
from serving.protocol import GpuReport


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A host's means, as an engine's run uses them."""

    launcher: Launcher
    """Of the platform's own engine build."""
    weights: Weights
    log_dir: Path
    address: str
    accelerators: tuple[str, ...] = ()
    drain_timeout_s: float = 30.0
    drain_poll_s: float = 0.2
    launcher_patience_s: float = 60.0
    """How long the launcher may be away before a start fails."""
    compile_dir: Path | None = None
    """Where engines keep what they compiled; None: where vLLM would."""
    machine: str = ""
    """What is compiled for on this node."""
    builds: Mapping[str, Launcher] = field(default_factory=dict)
    """Launchers of further engine builds, by name."""
    gpus: Callable[[], tuple[GpuReport, ...]] = tuple
    """How the accelerators stand; by default nobody tells."""
    health_interval_s: float = 1.0
    health_failures: int = 3
    transport: httpx.AsyncBaseTransport | None = None
