"""The launcher of a node: imports vLLM once, then forks an engine whenever a host asks for one.

A vLLM that the version table does not know is not imported; its engines are executed anew. Run as
`python -m serving.engine.launcher`; listens, which also says that it is warm, when all is imported.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from models.errors import PenstockError, UnavailableError
from serving import logs
from serving.engine import versions, vllm_adapter
from serving.engine.launch_server import LaunchServer
from serving.engine.socket_claim import claim_socket
from serving.engine.standby import StandbyPool
from serving.open_files import allow_many
from serving.settings import LauncherSettings

_log = logs.get_logger("penstock.launcher")


@dataclass(frozen=True, slots=True)
class Warmth:
    """What this launcher has done before it listens, and so how it can start engines."""

    build: str
    fork_obstacle: Callable[[], str | None]
    standby: int
    """Processes that shall stand by."""


def warm_up(settings: LauncherSettings) -> Warmth:
    """Imports vLLM where engines can be forked.

    Raises:
        UnavailableError: If vLLM is not installed, or cannot be imported.
    """
    build = versions.installed()
    if build is None:
        raise UnavailableError(
            "vLLM is not installed", hint="install penstock[cpu] or penstock[gpu]"
        )
    if settings.plain_spawn:
        return Warmth(str(build), lambda: "PENSTOCK_PLAIN_SPAWN is set", 0)
    if not build.reach.in_process:
        _log.warning("plain_spawn", build=str(build), reason="not in the version table")
        return Warmth(str(build), lambda: f"{build} is not in the version table", 0)
    told = vllm_adapter.pre_import()
    logs.configure("launcher")  # again: some of the imports set up logging of their own
    return Warmth(told, vllm_adapter.fork_obstacle, settings.standby)


def main() -> int:
    """Runs the launcher of this node; returns the exit code."""
    logs.configure("launcher")
    allow_many()
    needed = vllm_adapter.ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
    missing = {name: value for name, value in needed.items() if name not in os.environ}
    if missing:  # libraries read some of these while they are loaded, so before Python starts
        os.environ.update(missing)
        os.execv(sys.executable, [sys.executable, "-m", "serving.engine.launcher"])  # noqa: S606
    try:
        settings = LauncherSettings.load()
        with claim_socket(settings.launcher_socket) as claim:
            warm = warm_up(settings)
            server = LaunchServer(
                claim,
                vllm_adapter.serve,
                warm.build,
                warm.fork_obstacle,
                StandbyPool(warm.standby),
            )
            server.run(
                lambda: _log.info("ready", build=warm.build, socket=str(settings.launcher_socket))
            )
    except PenstockError as exc:
        _log.error("cannot_start", error=str(exc), hint=exc.hint)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    os._exit(exit_code)  # triton's bindings print fifty lines of leaks at an ordinary exit
