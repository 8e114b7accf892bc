"""Where an engine's core runs: forked, or in a thread of the API process; measured in pairs.

Two launchers stand side by side. In each round both start an engine of the built-in model, one
after the other and in changing order, and each engine is measured from the spawn to its probe, to
the first streamed token, and in tokens a second at some concurrency. The last line is one JSON
object: medians, and the median of the pairs' differences (thread minus fork).

The core in a thread stands here and not in the adapter: it is what decision 0006 measured.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.manifest import parse_manifest
from models.sources import BUILTINS
from serving.engine import child, vllm_adapter
from serving.engine.arguments import vllm_arguments
from serving.engine.launch_protocol import (
    Exited,
    Forked,
    Reached,
    Refused,
    SpawnRequest,
    decode_event,
    encode,
)
from serving.engine.launch_server import LaunchServer
from serving.engine.socket_claim import claim_socket
from serving.protocol import StartPhase

TOKEN = "bench-token"  # noqa: S105, of engines that live for a moment
CORES = ("fork", "thread")
PATIENCE_S = 180.0


@dataclass(frozen=True)
class Start:
    """One engine's figures."""

    probed_s: float
    first_token_s: float
    tokens_per_s: float
    private_mib: float


# --- the launcher with a core in a thread ---------------------------------------------------------


def run_launcher(core: str, path: Path) -> None:
    """Serves at the socket until SIGTERM, as `serving.engine.launcher` does."""
    serve = serve_threaded if core == "thread" else vllm_adapter.serve
    with claim_socket(path) as claim:
        build = vllm_adapter.pre_import()
        LaunchServer(claim, serve, build, vllm_adapter.fork_obstacle).run()


def serve_threaded(args: tuple[str, ...], listener: socket.socket, mark: child.Mark) -> None:
    """Runs an engine whose core is a thread of its API process."""
    from vllm.v1.engine import core_client, utils

    utils.CoreEngineProcManager = ThreadedCore  # type: ignore[misc]
    core_client.CoreEngineProcManager = ThreadedCore  # type: ignore[misc]
    vllm_adapter.serve(args, listener, mark)


class ThreadedCore:
    """Stands in for vLLM's manager of core processes; one core, and no clean end."""

    def __init__(self, **given: Any) -> None:
        named = ("vllm_config", "executor_class", "log_stats", "handshake_address", "local_client")
        self._given = {name: given[name] for name in named}
        self.manager_stopped = threading.Event()
        self.failed_proc_name: str | None = None
        self._thread = threading.Thread(target=self._run, name="core", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from vllm.v1.engine.core import EngineCoreProc

        self._given["vllm_config"].parallel_config.data_parallel_index = 0
        EngineCoreProc(engine_index=0, **self._given).run_busy_loop()

    def shutdown(self, timeout: float | None = None) -> None:
        """The process ends at once anyway."""
        self.manager_stopped.set()

    def monitor_engine_liveness(self) -> None:
        """Waits for the end."""
        self.manager_stopped.wait()

    def sentinels(self) -> list[int]:
        """No process, no sentinel."""
        return []

    def finished_procs(self) -> dict[str, int]:
        """Says whether the thread has ended."""
        return {} if self._thread.is_alive() else {"core": 1}


# --- the measurement ------------------------------------------------------------------------------


@contextlib.contextmanager
def launcher(core: str, folder: Path) -> Iterator[Path]:
    """A warm launcher of its own process; ends it."""
    path = folder / f"{core}.sock"
    environment = os.environ | vllm_adapter.ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--launcher", core, str(path)]
    with (folder / f"{core}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not _listens(path):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError((folder / f"{core}.log").read_text("utf-8"))
            time.sleep(0.05)
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def measure(
    path: Path, folder: Path, model: Path, concurrency: int, *, enforce_eager: bool = True
) -> Start:
    """Starts an engine at the launcher, uses it, ends it."""
    manifest = parse_manifest(
        {
            "name": "guide",
            "source": f"file://{model}",
            "engine": {
                "max_num_seqs": 32,
                "kv_cache_gib": 0.06,
                "enforce_eager": enforce_eager,
            },
        }
    )
    request = SpawnRequest(
        engine_id="bench", args=vllm_arguments(manifest, model), token=TOKEN,
        log_path=folder / "engine.log", memory_gib=1.0,
    )  # fmt: skip
    with socket.socket(socket.AF_UNIX) as lease:
        lease.settimeout(PATIENCE_S)
        lease.connect(str(path))
        began_s = time.perf_counter()
        lease.sendall(encode(request))
        lines = lease.makefile("rb")
        port = pid = 0
        for line in lines:
            match decode_event(line):
                case Forked() as forked:
                    port, pid = forked.port, forked.pid
                case Reached(phase=StartPhase.PROBED):
                    break
                case Refused() | Exited() as end:
                    raise RuntimeError(f"{end}\n{request.log_path.read_text('utf-8')}")
        probed_s = time.perf_counter() - began_s
        chat(port, 1)
        first_token_s = time.perf_counter() - began_s
        rate = tokens_per_s(port, concurrency)
        private = private_mib(pid)
        lease.shutdown(socket.SHUT_WR)
        for line in lines:
            if isinstance(decode_event(line), Exited):
                break
    return Start(probed_s, first_token_s, rate, private)


def chat(port: int, tokens: int) -> None:
    """One streamed chat to its end."""
    body = {
        "model": "guide", "messages": [{"role": "user", "content": "What is Penstock?"}],
        "stream": True, "max_tokens": tokens, "ignore_eos": True,
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {told[:200]!r}")


def tokens_per_s(port: int, concurrency: int, tokens: int = 128) -> float:
    """Output tokens a second of chats side by side."""
    threads = [threading.Thread(target=chat, args=(port, tokens)) for _ in range(concurrency)]
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return concurrency * tokens / (time.perf_counter() - began_s)


def private_mib(pid: int) -> float:
    """Private memory of a process and its children together."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    kib = 0
    for one in (pid, *map(int, children)):
        lines = Path(f"/proc/{one}/smaps_rollup").read_text("ascii").splitlines()
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return kib / 1024


def main() -> int:
    """Runs the rounds and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--model", type=Path, default=BUILTINS["guide"], help="folder of weights")
    parser.add_argument("--launcher", nargs=2, metavar=("CORE", "SOCKET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.launcher:
        run_launcher(options.launcher[0], Path(options.launcher[1]))
        os._exit(0)
    found: dict[str, list[Start]] = {core: [] for core in CORES}
    loads = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-core-")))
        paths = {core: stack.enter_context(launcher(core, folder)) for core in CORES}
        for core in CORES:  # the first start of each warms the page cache
            measure(paths[core], folder, options.model, options.concurrency)
        for number in range(options.pairs):
            for core in CORES if number % 2 else CORES[::-1]:
                one = measure(paths[core], folder, options.model, options.concurrency)
                found[core].append(one)
                loads.append(os.getloadavg()[0])
                sys.stdout.write(f"{core:6} {one}\n")
                sys.stdout.flush()
    line: dict[str, object] = {"bench": "core", "pairs": options.pairs}
    for name in ("probed_s", "first_token_s", "tokens_per_s", "private_mib"):
        columns = {core: [float(getattr(one, name)) for one in found[core]] for core in CORES}
        line |= {f"{core}_{name}": round(statistics.median(columns[core]), 3) for core in CORES}
        pairs = zip(columns["thread"], columns["fork"], strict=True)
        line[f"difference_{name}"] = round(statistics.median(t - f for t, f in pairs), 3)
    line["load"] = [round(min(loads), 1), round(max(loads), 1)]
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
