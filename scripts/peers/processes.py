"""Gateways as processes: started, waited for, and what they cost."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

START_TIMEOUT_S = 120.0


class PeerError(Exception):
    """A gateway does not serve."""


@dataclass(frozen=True)
class Peer:
    """A gateway that serves."""

    name: str
    url: str
    key: str
    process: psutil.Process

    @property
    def serves(self) -> bool:
        """Whether its process lives."""
        return is_alive(self.process)

    def cpu_s(self) -> float:
        """CPU time of the process and all its children so far, in seconds."""
        total = 0.0
        for process in self._all():
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                # The scheduler's own count: nanoseconds, where cpu_times has ticks of 10 ms.
                for task in Path(f"/proc/{process.pid}/task").iterdir():
                    total += int((task / "schedstat").read_text().split()[0]) / 1e9
        return total

    def peak_rss_mib(self) -> float:
        """The most memory that it ever held, in MiB."""
        total = 0.0
        for process in self._all():
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
                total += int(peak.split()[1]) / 1024
        return total

    def pin(self, cpu: int) -> None:
        """Keeps it on one core."""
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.cpu_affinity([cpu])

    def _all(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs and is no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def spawned(
    name: str, command: Sequence[str], folder: Path, env: dict[str, str] | None = None
) -> AsyncIterator[psutil.Process]:
    """A process that is gone with the block; what it says is in `folder/name.log`.

    Raises:
        PeerError: If it ended at once.
    """
    with (folder / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, env=env or dict(os.environ), start_new_session=True
        )
    try:
        try:
            running = psutil.Process(process.pid)
        except psutil.NoSuchProcess:
            raise PeerError("it has ended") from None
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()


async def answers(url: str, key: str, lives: Callable[[], bool] = lambda: True) -> None:
    """Waits until a small completion comes back.

    Raises:
        PeerError: If none does within START_TIMEOUT_S, or nobody lives who could send it.
    """
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    said = "it does not listen"
    try:
        async with (
            httpx.AsyncClient(timeout=5, headers={"Authorization": f"Bearer {key}"}) as client,
            asyncio.timeout(START_TIMEOUT_S),
        ):
            while lives():
                with suppress(httpx.HTTPError):
                    answer = await client.post(f"{url}/v1/chat/completions", json=body)
                    if answer.status_code == 200:
                        return
                    said = f"it answers {answer.status_code}: {answer.text[:200]}"
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise PeerError(f"no answer within {START_TIMEOUT_S:g} s: {said}") from None
    raise PeerError("it has ended")
