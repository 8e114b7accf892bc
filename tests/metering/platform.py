"""The platform under test as processes that can be killed: controller, gateways, hosts, engines."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from serving.controller.keys import ensure_keys_async
from serving.engine import recorder_file as layout
from serving.engine.recorder_file import NoRecorderError, State
from tests.metering.postgres import Postgres
from tests.ports import free_port

TOKEN = "internal-token"
ADMIN_KEY = "pa-the-operator-of-the-test"
TENANT_KEY = "pk-the-tenant-of-the-test"
MODEL = "chaos"
PATIENCE_S = 90.0
PRICE = {"model": "*", "input": "2", "cached": "1", "output": "6", "since": "2001-01-01T00:00:00Z"}
"""Dollars for a million tokens."""


@dataclass
class Part:
    """One process of ours that is started again after it was killed."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command], stdout=log, stderr=log,
                env={**_clean_environment(), **self.environment}, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM, and waits; a part that is deaf to it is killed."""
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
            self.kill()


@dataclass
class Platform:
    """Two gateways that share a machine, a controller, two hosts with an engine each.

    Args:
        folder: For everything that they write.
        postgres: The database; None: SQLite.
        real: The launcher's socket and the model's folder for the first host's engine.
    """

    folder: Path
    postgres: Postgres | None = None
    real: tuple[Path, Path] | None = None
    gateways: list[Part] = field(default_factory=list)
    hosts: list[Part] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        port = free_port()
        self.controller_url = f"http://127.0.0.1:{port}"
        shared = {"PENSTOCK_INTERNAL_TOKEN": TOKEN, "PENSTOCK_CONTROLLER_URL": self.controller_url}
        self.controller = Part(
            "controller", ["serving.controller.app"],
            {"PENSTOCK_INTERNAL_TOKEN": TOKEN, "PENSTOCK_DATABASE_URL": self.database_url,
             "PENSTOCK_CONTROLLER_PORT": str(port), "PENSTOCK_UNKNOWN_USAGE": "bill",
             "PENSTOCK_POOLS": '{"cpu": 2}'},
            self.folder / "controller.log",
        )  # fmt: skip
        for number in range(2):
            port = free_port()
            self.urls.append(f"http://127.0.0.1:{port}")
            own = {"PENSTOCK_GATEWAY_PORT": str(port),
                   "PENSTOCK_GATEWAY_STATE_DIR": str(self.folder / "gateways"),
                   "PENSTOCK_DEADLINE_S": "20"}  # fmt: skip
            self.gateways.append(
                Part(f"gateway {number}", ["serving.gateway.app"], {**shared, **own},
                     self.folder / f"gateway{number}.log")
            )  # fmt: skip
            host = self.folder / f"host{number}"
            host.mkdir(parents=True)
            real = [str(path) for path in self.real] if self.real and number == 0 else []
            self.hosts.append(
                Part(f"host {number}", ["tests.metering.host", f"host-{number}", str(host), *real],
                     shared, self.folder / f"host{number}.log")
            )  # fmt: skip

    @property
    def database_url(self) -> str:
        if self.postgres is not None:
            return self.postgres.url
        return f"sqlite+aiosqlite:///{self.folder / 'penstock.db'}"

    @property
    def journals(self) -> Path:
        return self.folder / "gateways" / "journal"

    async def start(self) -> None:
        """Starts everything and waits until both engines are routed."""
        await ensure_keys_async(self.database_url, ADMIN_KEY, TENANT_KEY)
        for part in (self.controller, *self.hosts, *self.gateways):
            part.start()
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with httpx.AsyncClient(headers=headers, timeout=30) as http:
            await until(lambda: _answers(http, f"{self.controller_url}/health"))
            manifest = {"name": MODEL, "source": "builtin://guide", "scaling": {"min": 2, "max": 2},
                        "engine": {"max_num_seqs": 12}}  # fmt: skip
            url = f"{self.controller_url}/admin/v1/models"
            (await http.post(url, json=manifest)).raise_for_status()
            prices = f"{self.controller_url}/admin/v1/prices/tokens"
            (await http.post(prices, json=PRICE)).raise_for_status()
            for gateway in self.urls:
                await until(lambda url=gateway: _answers(http, f"{url}/ready"))
            await until(lambda: _both_ready(http, url))

    def engine_pid(self, host: int) -> int:
        return int((self.folder / f"host{host}" / "engine.pid").read_text())

    def is_busy(self, host: int) -> bool:
        """Whether the engine works on an attempt, by its recorder."""
        for path in self.folder.glob(f"host{host}/recorders/*.recorder"):
            with contextlib.suppress(OSError, NoRecorderError):
                file = layout.open_existing(path)
                slots = range(file.words[layout.USED])
                states = [file.words[layout.word(slot, layout.SLOT_STATE)] for slot in slots]
                file.close()
                return State.RUNNING in states
        return False

    def kill_engine(self, host: int) -> None:
        """kill -9 of all processes of an engine."""
        pid = self.engine_pid(host)
        with contextlib.suppress(ProcessLookupError):
            if self.real and host == 0:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)

    async def settle(self) -> None:
        """Waits until nothing is on its way any more; then ends gateways and hosts in order."""
        async with httpx.AsyncClient(timeout=30) as http:
            await until(lambda: _answers(http, f"{self.controller_url}/health"))
            for url in self.urls:
                await until(lambda url=url: _answers(http, f"{url}/ready"))
            await until(self._no_orphans)
            for url in self.urls:
                await until(lambda url=url: _has_shipped(http, url))
        for part in self.gateways:
            await asyncio.to_thread(part.stop)
        left = [*self.journals.iterdir()]
        assert left == [], f"journals are left: {left}"
        for part in self.hosts:
            await asyncio.to_thread(part.stop)
        recorders = [*self.folder.glob("host*/recorders/*")]
        assert recorders == [], f"recorders are left: {recorders}"

    async def _no_orphans(self) -> bool:
        """Whether each journal has a gateway that lives."""
        for lock in self.journals.glob("*/lock"):
            with lock.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                return False
        return True

    def close(self) -> None:
        """Ends everything, whatever the state."""
        for part in self.gateways:
            part.kill()
        for part in (*self.hosts, self.controller):
            part.stop()


async def until(condition: Callable[[], object]) -> None:
    """Waits for an awaitable condition, at most PATIENCE_S."""
    ends_s = time.monotonic() + PATIENCE_S
    while not await condition():  # type: ignore[misc]
        if time.monotonic() > ends_s:
            raise TimeoutError("the platform did not come so far")
        await asyncio.sleep(0.1)


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx.HTTPError:
        return False


async def _has_shipped(http: httpx.AsyncClient, url: str) -> bool:
    return "\npenstock_journal_backlog_bytes 0.0\n" in (await http.get(f"{url}/metrics")).text


async def _both_ready(http: httpx.AsyncClient, url: str) -> bool:
    (model,) = (await http.get(url)).json()["items"]
    return bool(model["engines_ready"] == 2)


def _clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
