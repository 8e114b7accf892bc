"""A platform of processes of one version or two: controllers and gateways, and played hosts.

Hosts speak by their version's own client and run an engine that is played, with their version's own
guard and recorder: no Ray, no vLLM.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.docs.versions import Version
from tests.metering.engine import SOUND_VARIABLE
from tests.metering.platform import ADMIN_KEY, MODEL, TENANT_KEY, TOKEN
from tests.ports import free_port

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
TENANT = {"Authorization": f"Bearer {TENANT_KEY}"}
MANIFEST = {
    "source": "builtin://guide", "scaling": {"min": 1, "max": 1},
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
    """A controller on SQLite, a gateway, hosts.

    Args:
        folder: Of the processes, for what they keep and say.
        model: Name of the model that it serves.
        hosts: Of the pool; the first is `host`.
    """

    patience_s = 90.0

    def __init__(self, folder: Path, model: str = MODEL, hosts: int = 1) -> None:
        self.model = model
        self._controller_url, self.url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._database = f"sqlite+aiosqlite:///{folder / 'penstock.db'}"
        self._host_folder = folder / "host"
        self._host_folder.mkdir()
        where = {"PENSTOCK_CONTROLLER_URL": self._controller_url}
        self.controller = Process(
            "controller", ["serving.controller.app"], folder, PENSTOCK_DATABASE_URL=self._database,
            PENSTOCK_CONTROLLER_PORT=self._controller_url.rpartition(":")[2],
            PENSTOCK_POOLS=f'{{"cpu": {hosts}}}', PENSTOCK_HOST_TIMEOUT_S="60",
        )  # fmt: skip
        self.gateway = Process(
            "gateway", ["serving.gateway.app"], folder, **where,
            PENSTOCK_GATEWAY_PORT=self.url.rpartition(":")[2],
            PENSTOCK_GATEWAY_STATE_DIR=str(folder / "gateway"), PENSTOCK_DEADLINE_S="60",
        )  # fmt: skip
        host = ["tests.metering.host", "host-0", str(self._host_folder)]
        self.host = Process("host", host, folder, **where)
        self._others: list[Process] = []
        for number in range(1, hosts):
            (place := folder / f"host-{number}").mkdir()
            host = ["tests.metering.host", f"host-{number}", str(place)]
            self._others.append(Process(place.name, host, folder, **where))
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
        for part in self._others:
            part.start(host)
        self.until(lambda: self.admin("GET", "models") is not None, "the controller answers")
        self.admin("POST", "models", {"name": self.model, **MANIFEST})
        self.until_served()

    def close(self) -> None:
        for part in (*self._parts, *self._others):
            part.stop()

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        ends_s = time.monotonic() + self.patience_s
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
        (model,) = (m for m in self.admin("GET", "models")["items"] if m["name"] == self.model)
        return int(model["engines_ready"])

    def engine_pid(self) -> int:
        """Of the engine that runs, or ran last."""
        return int((self._host_folder / "engine.pid").read_text())

    def ask(self) -> int:
        """One chat; counts those that were answered."""
        url = f"{self.url}/v1/chat/completions"
        answer = httpx.post(
            url, headers=TENANT, json={"model": self.model, **CHAT}, timeout=90, trust_env=False
        )
        self.asked += answer.status_code == 200
        return answer.status_code

    def counted(self) -> int:
        """Requests of the tenant that the controller has in its books."""
        items = self.admin("GET", "usage")["items"]
        return sum(item["requests"] for item in items)

    def _gateway_is_ready(self) -> bool:
        return httpx.get(f"{self.url}/ready", trust_env=False).status_code == 200

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(
            method, f"{self._controller_url}/admin/v1/{path}", headers=ADMIN, json=body,
            timeout=30, trust_env=False,
        )  # fmt: skip
        return answer.raise_for_status().json()
