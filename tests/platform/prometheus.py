"""A Prometheus of the tests' own: Debian's program, a folder that goes away, a port on loopback."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.platform.platform import eventually

PROGRAM = shutil.which("prometheus")


class Prometheus:
    """Asks a running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        """The data of one answer of its API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=20) as answer:  # noqa: S310
            return json.loads(answer.read())["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        return self.get("query", query=expression)["result"]

    def names(self) -> set[str]:
        """The names of all metrics."""
        return set(self.get("label/__name__/values"))

    def scrapes(self) -> dict[str, str]:
        """Jobs and how their last scrape went: `up`, `down` or `unknown`."""
        return {t["labels"]["job"]: t["health"] for t in self.get("targets")["activeTargets"]}


@contextmanager
def running(folder: Path, port: int, targets: dict[str, str], rules: Path) -> Iterator[Prometheus]:
    """Scrapes the targets (job to host:port) each second until the block ends."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": job, "honor_labels": True, "static_configs": [{"targets": [target]}]}
            for job, target in targets.items()
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROGRAM or "prometheus", f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        asked = Prometheus(f"http://127.0.0.1:{port}")
        eventually(lambda: is_ready(asked), 30, "Prometheus is ready")
        yield asked
    finally:
        process.terminate()
        process.wait(timeout=30)


def is_ready(asked: Prometheus) -> bool:
    """Whether it answers, and every target was scraped well."""
    try:
        health = asked.scrapes()
    except OSError:
        time.sleep(0.2)
        return False
    return bool(health) and set(health.values()) == {"up"}
