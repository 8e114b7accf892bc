"""A launcher whose engines are not vLLM: real processes, started in milliseconds.

Run as `python -m tests.serving.engine.stub_launcher SOCKET [STANDBYS] [OBSTACLE]`. An engine's
first process forks a second one, as vLLM does, writes both pids to its log, and answers each
connection with one line. Its arguments say how it misbehaves: `fail` (a known error), `crash` (an
exception), `stubborn` (deaf to SIGTERM), `die` (killed by a signal).
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

from models.errors import BadRequestError
from serving import logs
from serving.engine import child
from serving.engine.launch_server import LaunchServer
from serving.engine.socket_claim import claim_socket
from serving.engine.standby import StandbyPool
from serving.protocol import StartPhase


def serve(args: tuple[str, ...], listener: socket.socket, mark: child.Mark) -> None:
    if "fail" in args:
        raise BadRequestError("no such argument", hint="read the manual")
    if "crash" in args:
        raise RuntimeError("the engine broke")
    if "stubborn" in args:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    core = os.fork()
    if core == 0:
        while True:
            time.sleep(60)
    mark(StartPhase.WEIGHTS)
    print(f"pids {os.getpid()} {core} scratch {os.environ['TMPDIR']}", flush=True)
    if "die" in args:
        os.kill(os.getpid(), signal.SIGKILL)
    mark(StartPhase.ENGINE_READY)
    while True:
        connection, _ = listener.accept()
        connection.sendall(f"{os.environ['PENSTOCK_ENGINE_TOKEN']}\n".encode())
        connection.close()


if __name__ == "__main__":
    logs.configure("launcher")
    with claim_socket(Path(sys.argv[1])) as claim:
        size, obstacle = int((sys.argv[2:3] or ["0"])[0]), (sys.argv[3:4] or [None])[0]
        pool = StandbyPool(size, (sys.executable, "-m", "tests.serving.engine.stub_standby"))
        server = LaunchServer(claim, serve, "stub 1", lambda: obstacle, pool)
        server.run(lambda: print("listening", flush=True))
