"""A platform of a benchmark's own, and the models that it serves."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml

PENSTOCK = Path(sys.executable).with_name("penstock")


class BenchError(Exception):
    """A command that the benchmark needs did not do what it should."""


@dataclass(frozen=True)
class Subject:
    """A model to measure with."""

    name: str
    output_tokens: int
    least_requests: int
    """Requests of a run, where its visitors are fewer."""

    def manifest(self, source: str) -> dict[str, object]:
        """One engine that is always awake, with room for the highest concurrency."""
        return {
            "name": self.name,
            "source": source,
            "engine": {"max_num_seqs": 64, "max_model_len": 1024, "kv_cache_gib": 0.75},
            "resources": {"memory_gib": 3},
            "scaling": {"min": 1, "max": 1},
        }


LARGE = Subject("random-100m", 48, 4)
DEMO = Subject("demo", 64, 8)


@dataclass(frozen=True)
class Platform:
    """A platform of this benchmark's own."""

    data_dir: Path
    environment: Mapping[str, str]

    @property
    def state(self) -> dict[str, object]:
        return dict(json.loads((self.data_dir / "platform.json").read_text()))

    @property
    def url(self) -> str:
        return str(self.state["url"])

    def penstock(self, *arguments: str, url: str | None = None) -> str:
        """Runs a command; gives back what it says on stdout. Its stderr goes to ours.

        Raises:
            BenchError: It failed.
        """
        where = {} if url is None else {"PENSTOCK_URL": url}
        done = subprocess.run(
            [PENSTOCK, *arguments], env={**self.environment, **where}, stdout=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode not in (0, 1):  # 1: a comparison that is not valid, and says why
            raise BenchError(f"penstock {arguments[0]} ended with {done.returncode}")
        return done.stdout

    def deploy(self, subject: Subject, source: str) -> None:
        """Deploys a model and waits until it is awake."""
        file = self.data_dir / f"{subject.name}.yaml"
        file.write_text(yaml.safe_dump(subject.manifest(source)))
        self.penstock("deploy", "-f", str(file), url=self.url)

    def engine(self, model: str) -> tuple[str, str]:
        """URL and token of the model's engine, as the gateways are told them.

        Raises:
            BenchError: There is not exactly one.
        """
        ports = self.state["ports"]
        token = (self.data_dir / "internal-token").read_text().strip()
        routes = httpx.get(
            f"http://127.0.0.1:{dict(ports)['controller']}/internal/v1/routes?after=0",  # type: ignore[call-overload]
            headers={"Authorization": f"Bearer {token}"},
        ).json()
        found = [e for m in routes["models"] if m["name"] == model for e in m["endpoints"]]
        if len(found) != 1:
            raise BenchError(f"{model} has {len(found)} engines, not one")
        return str(found[0]["url"]), str(found[0]["token"])

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far of each part; engines are children of the launcher."""
        parts: dict[str, dict[str, int]] = self.state["parts"]  # type: ignore[assignment]
        used: dict[str, float] = {}
        for name, part in parts.items():
            try:
                process = psutil.Process(part["pid"])
                children = process.children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            used[name] = _cpu_s([process])
            below = "engine" if name == "launcher" else name
            used[below] = used.get(below, 0.0) + _cpu_s(children)
        return used


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    total_s = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total_s += times.user + times.system
    return total_s


@contextmanager
def platform(folder: Path) -> Iterator[Platform]:
    """Starts a platform, and stops it after use.

    Raises:
        BenchError: It does not start.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "RAY_"))}
    keys = {
        "PENSTOCK_ADMIN_KEY": secrets.token_urlsafe(24),
        "PENSTOCK_API_KEY": secrets.token_urlsafe(24),
    }
    running = Platform(folder / "data", clean | keys)
    where = ("--data-dir", str(running.data_dir))
    running.penstock("up", "--detach", "--port", "0", "--no-deploy", *where)
    try:
        yield running
    finally:
        running.penstock("down", *where)
