"""The launcher of a node: imports vLLM once, then forks an engine whenever a host asks for one.

Run as `python -m serving.engine.launcher`; listens, which also says that it is warm, when all is
imported.
"""

import os
import sys

from models.errors import PenstockError
from serving import logs
from serving.engine import vllm_adapter
from serving.engine.launch_server import LaunchServer
from serving.engine.socket_claim import claim_socket
from serving.engine.standby import StandbyPool
from serving.settings import LauncherSettings

_log = logs.get_logger("penstock.launcher")


def main() -> int:
    """Runs the launcher of this node; returns the exit code."""
    logs.configure("launcher")
    needed = vllm_adapter.ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
    missing = {name: value for name, value in needed.items() if name not in os.environ}
    if missing:  # libraries read some of these while they are loaded, so before Python starts
        os.environ.update(missing)
        os.execv(sys.executable, [sys.executable, "-m", "serving.engine.launcher"])  # noqa: S606
    try:
        settings = LauncherSettings.load()
        with claim_socket(settings.launcher_socket) as claim:
            build = vllm_adapter.pre_import()
            logs.configure("launcher")  # again: some of the imports set up logging of their own
            server = LaunchServer(
                claim,
                vllm_adapter.serve,
                build,
                vllm_adapter.fork_obstacle,
                StandbyPool(settings.standby),
            )
            server.run(
                lambda: _log.info("ready", build=build, socket=str(settings.launcher_socket))
            )
    except PenstockError as exc:
        _log.error("cannot_start", error=str(exc), hint=exc.hint)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    os._exit(exit_code)  # triton's bindings print fifty lines of leaks at an ordinary exit
