"""A platform under test, as an operator sees it: the command line, its processes, its port."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from tests.processes import is_alive

T = TypeVar("T")
PENSTOCK = Path(sys.executable).with_name("penstock")
PATIENCE_S = 60.0


@dataclass
class Platform:
    """Drives one platform in a data directory of its own."""

    data_dir: Path
    admin_key: str
    api_key: str
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "RAY_"))}
        keys = {"PENSTOCK_ADMIN_KEY": self.admin_key, "PENSTOCK_API_KEY": self.api_key}
        keys["PENSTOCK_METRICS_BY_TENANT"] = "true"
        return clean | keys | ({"PENSTOCK_URL": self.url} if self.state_file.exists() else {})

    @property
    def state_file(self) -> Path:
        return self.data_dir / "platform.json"

    @property
    def state(self) -> dict[str, Any]:
        return json.loads(self.state_file.read_text())

    @property
    def url(self) -> str:
        return self.state["url"]

    def penstock(self, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs the command line to its end."""
        return subprocess.run(
            [PENSTOCK, *args],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def up(self, *args: str) -> None:
        """Starts the platform in the background and waits until it serves."""
        done = self.penstock(
            "up", "--detach", "--port", "0", "--data-dir", str(self.data_dir), *args, timeout=240
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        self.processes()

    def down(self) -> None:
        """Stops it; what was seen of its processes is kept for `leftovers`."""
        self.processes()
        done = self.penstock("down", "--data-dir", str(self.data_dir))
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    def processes(self) -> list[psutil.Process]:
        """All processes of this platform: whoever bears its data directory in the environment."""
        found = []
        mark = str(self.data_dir)
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and mark in " ".join(
                    [*process.environ().values(), *process.cmdline()]
                ):
                    found.append(process)
                    self.seen[process.pid] = process
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def part(self, module: str) -> psutil.Process:
        """The process that runs a module; the oldest, for a fork is called so for a moment."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # others come and go
                if module in process.cmdline():
                    found.append(process)
        assert found, module
        return min(found, key=psutil.Process.create_time)

    def leftovers(self, within_s: float = 15) -> list[str]:
        """Processes of this platform that still live after `within_s`, those ever seen included."""

        def alive() -> list[str]:
            self.processes()
            return [describe(p) for p in self.seen.values() if is_alive(p)]

        deadline = time.monotonic() + within_s
        while (left := alive()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def items(self, noun: str) -> list[dict[str, Any]]:
        """What `penstock get NOUN --output json` prints, without its start of a second each."""
        try:
            answer = httpx.get(
                f"{self.url}/admin/v1/{noun}",
                headers={"Authorization": f"Bearer {self.admin_key}"}, timeout=30, trust_env=False,
            )  # fmt: skip
        except httpx.TransportError as exc:
            raise AssertionError(f"{noun}: {exc!r}") from exc
        assert answer.is_success, answer.text
        return answer.json()["items"]

    def delete(self, name: str) -> None:
        """What `penstock delete NAME` does, without its start of a second; also if it is gone.

        Returns when the gateway knows of it, so that the name can be taken anew.
        """
        headers = {"Authorization": f"Bearer {self.admin_key}"}

        def is_gone() -> bool:
            try:
                answer = httpx.delete(
                    f"{self.url}/admin/v1/models/{name}",
                    headers=headers, timeout=30, trust_env=False,
                )  # fmt: skip
            except httpx.TransportError:
                return False
            return answer.is_success or answer.status_code == 404

        eventually(is_gone, 10, f"{name} is deleted")
        eventually(lambda: name not in self.listed(), 10, f"the gateway lists {name} no more")

    def is_listed(self, name: str) -> bool:
        """Waits until the gateway lists a model or an adapter.

        A deploy is answered once the gateway is told of it, which is before it has listened.
        """
        return eventually(lambda: name in self.listed(), 10, f"the gateway lists {name}")

    def listed(self) -> list[str]:
        """The models and adapters that the gateway knows of at this moment."""
        answer = httpx.get(
            f"{self.url}/v1/models",
            headers={"Authorization": f"Bearer {self.api_key}"}, timeout=30, trust_env=False,
        )  # fmt: skip
        assert answer.is_success, answer.text
        return [one["id"] for one in answer.json()["data"]]

    def model(self, name: str) -> dict[str, Any]:
        return next(model for model in self.items("models") if model["name"] == name)

    def engine_metric(self, model: str, name: str) -> float:
        """One of vLLM's metrics, from the model's only engine."""
        (value,) = self.engine_metrics(model, name).values()
        return value

    def engine_metrics(self, model: str, name: str) -> dict[str, float]:
        """One of vLLM's metrics, by engine_id, asked as a gateway would."""
        token = (self.data_dir / "internal-token").read_text().strip()
        routes = httpx.get(
            f"http://127.0.0.1:{self.state['ports']['controller']}/internal/v1/routes?after=0",
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        ).json()
        (route,) = [route for route in routes["models"] if route["name"] == model]
        found = {}
        for endpoint in route["endpoints"]:
            text = httpx.get(
                f"{endpoint['url']}/metrics",
                headers={"Authorization": f"Bearer {endpoint['token']}"},
                timeout=30,
            ).text
            starts = (name + "{", name + " ")
            lines = [line for line in text.splitlines() if line.startswith(starts)]
            found[endpoint["engine_id"]] = sum(float(line.rsplit(" ", 1)[1]) for line in lines)
        return found

    def logs(self) -> str:
        """The ends of all parts' logs, for a failed assertion."""
        parts = sorted((self.data_dir / "logs").glob("*.log"))
        return "\n".join(f"== {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in parts)


def describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:160]}"
    except psutil.NoSuchProcess:
        return f"{process.pid} (gone)"


def eventually(check: Callable[[], T], within_s: float, what: str) -> T:
    """Waits until `check` returns something true, and returns it.

    Args:
        check: Is asked ten times a second.
        within_s: What it may take on a machine of its own; a busy one has PATIENCE_S in any case.
        what: For the failure.
    """
    within_s = max(within_s, PATIENCE_S)
    deadline = time.monotonic() + within_s
    while True:
        if result := check():
            return result
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.1)


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
