"""Two installed versions side by side: an upgrade in both orders, while tenants ask.

Real processes of both: controllers, gateways, and hosts that speak by their version's own client
and run an engine that is played, with their version's own guard and recorder.
"""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.versions import NOW, Version, obstacle, older
from tests.metering.engine import SOUND_VARIABLE
from tests.metering.platform import ADMIN_KEY, MODEL, TENANT_KEY, TOKEN
from tests.ports import free_port

pytestmark = pytest.mark.engine  # no vLLM, but real processes of two versions

PATIENCE_S = 90.0
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
TENANT = {"Authorization": f"Bearer {TENANT_KEY}"}
MANIFEST = {
    "name": MODEL, "source": "builtin://guide", "scaling": {"min": 1, "max": 1},
    "engine": {"max_num_seqs": 12, "kv_cache_gib": 0.03},
}  # fmt: skip


class Process:
    """A part of the platform, of one version after the other."""

    def __init__(self, name: str, command: list[str], folder: Path, **variables: str) -> None:
        self._command, self._log = command, folder / f"{name}.log"
        self._variables = {"PENSTOCK_INTERNAL_TOKEN": TOKEN, SOUND_VARIABLE: "1", **variables}
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, version: Version) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "PYTHON"))}
        with self._log.open("ab") as log:
            self._running = subprocess.Popen(
                [version.python, "-m", *self._command], cwd=version.folder, stdout=log, stderr=log,
                env={**clean, **self._variables}, start_new_session=True,
            )  # fmt: skip

    def stop(self) -> None:
        if self._running is not None:
            self._running.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running.wait(60)
            self._running.kill()
            self._running.wait()
            self._running = None

    def replace(self, version: Version) -> None:
        self.stop()
        self.start(version)

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""


class Platform:
    """A controller on SQLite, a gateway, a host."""

    def __init__(self, folder: Path) -> None:
        self._controller_url, self._url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._database = f"sqlite+aiosqlite:///{folder / 'penstock.db'}"
        self._host_folder = folder / "host"
        self._host_folder.mkdir()
        where = {"PENSTOCK_CONTROLLER_URL": self._controller_url}
        self.controller = Process(
            "controller", ["serving.controller.app"], folder, PENSTOCK_DATABASE_URL=self._database,
            PENSTOCK_CONTROLLER_PORT=self._controller_url.rpartition(":")[2],
            PENSTOCK_POOLS='{"cpu": 1}', PENSTOCK_HOST_TIMEOUT_S="60",
        )  # fmt: skip
        self.gateway = Process(
            "gateway", ["serving.gateway.app"], folder, **where,
            PENSTOCK_GATEWAY_PORT=self._url.rpartition(":")[2],
            PENSTOCK_GATEWAY_STATE_DIR=str(folder / "gateway"), PENSTOCK_DEADLINE_S="60",
        )  # fmt: skip
        host = ["tests.metering.host", "host-0", str(self._host_folder)]
        self.host = Process("host", host, folder, **where)
        self.asked = 0

    @property
    def _parts(self) -> tuple[Process, Process, Process]:
        return self.gateway, self.host, self.controller

    def start(self, controller: Version, gateway: Version, host: Version) -> None:
        """Starts everything, and waits until the model is served."""
        variables = {"PENSTOCK_DATABASE_URL": self._database, "PENSTOCK_ADMIN_KEY": ADMIN_KEY,
                     "PENSTOCK_API_KEY": TENANT_KEY}  # fmt: skip
        subprocess.run(
            [controller.python, "-m", "serving.controller.keys"], cwd=controller.folder,
            env={"PATH": os.environ["PATH"], **variables}, check=True, capture_output=True,
        )  # fmt: skip
        for part, version in zip(self._parts, (gateway, host, controller), strict=True):
            part.start(version)
        self.until(lambda: self._admin("GET", "models") is not None, "the controller answers")
        self._admin("POST", "models", MANIFEST)
        self.until_served()

    def close(self) -> None:
        for part in self._parts:
            part.stop()

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        ends_s = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(httpx.HTTPError, ValueError):  # not there, or not yet whole
                if is_so():
                    return
            logs = "\n\n".join(part.said() for part in self._parts)
            assert time.monotonic() < ends_s, f"{what}: not in time\n{logs}"
            time.sleep(0.1)

    def until_served(self) -> None:
        self.until(lambda: self.engines_ready() == 1, "an engine is ready")
        self.until(lambda: self._gateway_is_ready() and self.ask() == 200, "the model is served")

    def engines_ready(self) -> int:
        (model,) = self._admin("GET", "models")["items"]
        return int(model["engines_ready"])

    def engine_pid(self) -> int:
        """Of the engine that runs, or ran last."""
        return int((self._host_folder / "engine.pid").read_text())

    def ask(self) -> int:
        """One chat; counts those that were answered."""
        url = f"{self._url}/v1/chat/completions"
        answer = httpx.post(url, headers=TENANT, json=CHAT, timeout=90, trust_env=False)
        self.asked += answer.status_code == 200
        return answer.status_code

    def counted(self) -> int:
        """Requests of the tenant that the controller has in its books."""
        items = self._admin("GET", "usage")["items"]
        return sum(item["requests"] for item in items)

    def _gateway_is_ready(self) -> bool:
        return httpx.get(f"{self._url}/ready", trust_env=False).status_code == 200

    def _admin(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(
            method, f"{self._controller_url}/admin/v1/{path}", headers=ADMIN, json=body,
            timeout=30, trust_env=False,
        )  # fmt: skip
        return answer.raise_for_status().json()


@contextlib.contextmanager
def asked_meanwhile(platform: Platform) -> Iterator[None]:
    """A tenant asks all the time, and every answer is a good one."""
    stop, seen = threading.Event(), list[int]()

    def ask() -> None:
        while not stop.wait(0.05):
            seen.append(platform.ask())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert seen and set(seen) == {200}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Version:
    if (why := obstacle()) is not None:
        pytest.skip(why)
    return older(tmp_path_factory.mktemp("older"))


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_upgrade_that_begins_with_the_controller(before: Version, platform: Platform) -> None:
    platform.start(controller=before, gateway=before, host=before)
    engine = platform.engine_pid()
    with asked_meanwhile(platform):
        platform.controller.replace(NOW)  # migrates the database
        platform.until(lambda: platform.engines_ready() == 1, "the engine was adopted")
    assert platform.engine_pid() == engine  # and not started anew
    platform.gateway.replace(NOW)  # finds its predecessor's journal
    platform.until_served()
    assert platform.engine_pid() == engine
    platform.host.replace(NOW)
    platform.until(lambda: platform.engine_pid() != engine, "the host starts an engine")
    platform.until_served()
    platform.until(lambda: platform.counted() == platform.asked, "all requests are in the books")


def test_upgrade_that_begins_with_the_hosts(before: Version, platform: Platform) -> None:
    platform.start(controller=before, gateway=before, host=NOW)
    platform.gateway.replace(NOW)
    platform.until_served()
    platform.until(lambda: platform.counted() == platform.asked, "all requests are in the books")
