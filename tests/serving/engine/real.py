"""Drives a real launcher and its vLLM engines from plain, synchronous tests."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from models.manifest import parse_manifest
from serving.engine.arguments import vllm_arguments
from serving.engine.launch_protocol import (
    Event,
    Exited,
    Forked,
    Reached,
    SpawnRequest,
    decode_event,
    encode,
)
from serving.protocol import StartPhase
from tests.processes import pid_is_alive, still_alive

START_TIMEOUT_S = 180
END_TIMEOUT_S = 60
LOG_TIMEOUT_S = 30
TOKEN = "token-of-the-test"


@dataclass
class Launcher:
    """A running launcher's process."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def socket(self) -> Path:
        return self.folder / "launcher.sock"


@contextlib.contextmanager
def start_launcher(
    folder: Path, within: Sequence[str] = (), python: str = sys.executable, **settings: str
) -> Iterator[Launcher]:
    """Starts a launcher as `penstock up` does, waits until it is warm, and ends it.

    Args:
        folder: For its socket and log.
        within: A command that executes it, as `ip netns exec NAME` does.
        python: The interpreter, whose vLLM it is of.
        settings: What its environment has more.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    environment["PENSTOCK_LAUNCHER_SOCKET"] = str(folder / "launcher.sock")
    environment |= settings
    with (folder / "launcher.log").open("wb") as log:
        process = subprocess.Popen(
            [*within, python, "-m", "serving.engine.launcher"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    launcher = Launcher(process, folder)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(launcher.socket):
            assert process.poll() is None, (folder / "launcher.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield launcher
    finally:
        process.terminate()
        process.wait(END_TIMEOUT_S)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class Engine:
    """A spawned engine and its lease."""

    def __init__(self, launcher: Launcher, request: SpawnRequest) -> None:
        self.log_path = request.log_path
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(START_TIMEOUT_S)
        self._connection.connect(str(launcher.socket))
        self._connection.sendall(encode(request))
        self._lines = self._connection.makefile("rb")
        self.events: list[Event] = []
        self.forked: Forked | None = None
        self.processes: list[psutil.Process] = []

    def next_event(self) -> Event | None:
        """The next event; None where the launcher has closed the connection."""
        line = self._lines.readline()
        if not line:
            return None
        self.events.append(decode_event(line))
        if isinstance(self.events[-1], Forked):
            self.forked = self.events[-1]
        return self.events[-1]

    def wait_until_ready(self) -> None:
        """Until the engine says so, or answers, where it was executed."""
        event = self.next_event()
        assert isinstance(event, Forked), event
        if event.mode == "exec":
            self._wait_until_healthy()
        else:
            while not (isinstance(event, Reached) and event.phase is StartPhase.PROBED):
                event = self.next_event()
                assert isinstance(event, Reached), event
        first = psutil.Process(self.forked.pid)  # type: ignore[union-attr]
        self.processes = [first, *first.children(recursive=True)]
        assert len(self.processes) >= 2  # vLLM's API server and its engine core

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        with self.client() as http:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    assert http.get("/health").status_code == 200
                    return
                assert pid_is_alive(self.forked.pid), self.log_path.read_text()  # type: ignore[union-attr]
                time.sleep(0.2)
        raise AssertionError(self.log_path.read_text())

    @property
    def core(self) -> psutil.Process:
        """The process that computes."""
        return next(p for p in self.processes[1:] if "EngineCor" in p.name())

    def client(self, token: str = TOKEN) -> httpx.Client:
        assert self.forked is not None
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.forked.port}",
            headers={"authorization": f"Bearer {token}"},
            timeout=60,
        )

    def end(self) -> Exited:
        """Gives the lease up and waits for the end."""
        self._connection.shutdown(socket.SHUT_WR)
        return self.wait_for_exit()

    def wait_for_exit(self) -> Exited:
        while (event := self.next_event()) is not None:
            if isinstance(event, Exited):
                return event
        raise AssertionError(self.events)

    def log_with(self, text: str) -> str:
        """The log, as soon as it says `text`: an engine logs a request after it has answered it."""
        deadline = time.monotonic() + LOG_TIMEOUT_S
        while text not in (log := self.log_path.read_text()):
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
        return log

    def assert_gone(self) -> None:
        """No process of the engine is left, whoever has to reap it."""
        assert_gone(self.processes)

    def close(self) -> None:
        self._lines.close()
        self._connection.close()


@contextlib.contextmanager
def spawned(
    launcher: Launcher,
    model: Path,
    log_path: Path,
    mode: str = "fork",
    environment: dict[str, str] | None = None,
    **engine: object,
) -> Iterator[Engine]:
    """An engine of the model, not yet ready; its lease is broken at the end."""
    manifest = parse_manifest({"name": "tiny", "source": f"file://{model}", "engine": engine})
    request = SpawnRequest(
        engine_id=log_path.stem,
        args=vllm_arguments(manifest, model),
        environment=environment or {},
        token=TOKEN,
        log_path=log_path,
        memory_gib=1.0,
        mode=mode,
    )
    child = Engine(launcher, request)
    try:
        yield child
    finally:
        child.close()
        assert_gone(child.processes[:1])


def assert_gone(processes: list[psutil.Process]) -> None:
    """Within END_TIMEOUT_S."""
    assert still_alive(processes, END_TIMEOUT_S) == []


def kill(process: psutil.Process) -> None:
    """kill -9."""
    process.send_signal(signal.SIGKILL)
