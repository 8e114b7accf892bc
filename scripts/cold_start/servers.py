"""The ordinary way: vLLM's own server, from its start to its first streamed token."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scripts.cold_start.parts import say
from scripts.cold_start.platform_up import PATIENCE_S, first_token_s
from scripts.cold_start.wakes import KV_CACHE_GIB

EAGER = "--enforce-eager"


class Servers:
    """Starts servers; knows what is in their caches already.

    Args:
        start_s: Starts one and ends it again; the seconds that it took to its first token.
    """

    def __init__(self, start_s: Callable[..., float] | None = None) -> None:
        self._start_s = start_s or start_server_s
        self._warm: set[str] = set()

    def start_s(self, folder: Path, *more: str) -> float:
        """Seconds from the start of vLLM's own server to its first streamed token, caches warm.

        What is cached is what vLLM knows of the model's class, by any start, and what it compiled,
        by an earlier start of the same model; where that is missing, an earlier start is made.

        Raises:
            RuntimeError: If it does not start.
        """
        needed = {"class"} if EAGER in more else {"class", str(folder)}
        if not needed <= self._warm:
            took_s = self._start_s(folder, *more)
            say(f"{took_s:.1f} s with caches that may be cold; once more")
            self._warm |= needed
        took_s = self._start_s(folder, *more)
        say(f"{took_s:.1f} s")
        return took_s


def start_server_s(folder: Path, *more: str) -> float:
    """Seconds from the start of vLLM's own server to its first streamed token; ends it.

    Raises:
        RuntimeError: If it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    say(f"vLLM's own server {' '.join(more) or '(default)'}, {folder.name}")
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}",
        f"--kv-cache-memory-bytes={int(KV_CACHE_GIB * 2**30)}", "--max-num-seqs=8",
        "--served-model-name=bench", "--host=127.0.0.1", f"--port={port}", *more,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    began_s = time.perf_counter()
    server = subprocess.Popen(
        command, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while server.poll() is None and time.perf_counter() - began_s < 5 * PATIENCE_S:
            try:
                first_token_s(f"127.0.0.1:{port}", "bench", "none")
                return time.perf_counter() - began_s
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise RuntimeError(f"vLLM's own server did not start (exit code {server.poll()})")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
