"""A node of a cluster: two processes, one fate."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.errors import BadRequestError
from serving.cli.node import ray_command
from tests.processes import pid_is_alive

SCRIPT = """
import sys
from serving.cli.node import Node
sys.exit(Node({ray!r}, {launcher!r}).run())
"""
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}


def node(tmp_path: Path, ray: str, launcher: str) -> subprocess.Popen[bytes]:
    """A node whose two processes are shell lines."""
    script = SCRIPT.format(ray=["bash", "-c", ray], launcher=["bash", "-c", launcher])
    return subprocess.Popen(
        [sys.executable, "-c", script], env=ENVIRONMENT, cwd=tmp_path, stderr=subprocess.PIPE
    )


def eventually(check: object, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finish(process: subprocess.Popen[bytes]) -> int:
    process.communicate(timeout=60)
    return process.returncode


def test_node_takes_kuberays_command() -> None:
    command = "ray start --block --resources '{\"a b\": 1}'"
    seen = ray_command([], {"KUBERAY_GEN_RAY_START_CMD": command})
    assert seen == ["ray", "start", "--block", "--resources", '{"a b": 1}']


def test_node_prefers_its_arguments() -> None:
    assert ray_command(["ray", "status"], {"KUBERAY_GEN_RAY_START_CMD": "x"}) == ["ray", "status"]


def test_node_refuses_to_start_without_a_command() -> None:
    with pytest.raises(BadRequestError, match="no command for Ray"):
        ray_command([], {})


def test_node_ends_with_ray_and_takes_the_launcher_along(tmp_path: Path) -> None:
    ray = "while [ ! -s pid ]; do sleep 0.05; done; exit 7"
    process = node(tmp_path, ray, "echo $$ > pid; exec sleep 100")
    assert finish(process) == 7
    assert not pid_is_alive(int((tmp_path / "pid").read_text()))


def test_node_fails_when_ray_ends_by_itself_without_an_error(tmp_path: Path) -> None:
    assert finish(node(tmp_path, "exit 0", "exec sleep 100")) == 1


def test_node_starts_its_launcher_again(tmp_path: Path) -> None:
    process = node(tmp_path, "exec sleep 100", "echo x >> starts; exit 1")
    eventually(lambda: (tmp_path / "starts").exists()
               and len((tmp_path / "starts").read_text().split()) >= 3)  # fmt: skip
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 0


def test_node_ends_both_when_it_is_told_to(tmp_path: Path) -> None:
    process = node(tmp_path, "echo $$ > ray; exec sleep 100", "echo $$ > launcher; exec sleep 100")
    files = [tmp_path / "ray", tmp_path / "launcher"]
    eventually(lambda: all(f.exists() and f.read_text().strip() for f in files))
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 0
    assert not any(pid_is_alive(int(f.read_text())) for f in files)


DRAINING = """
import sys
from serving.cli.node import Node
drain = ["bash", "-c", {drain!r}]
ray = ["bash", "-c", "exec sleep 100"]
launcher = ["bash", "-c", {launcher!r}]
sys.exit(Node(ray, launcher, drain_command=drain, drain_timeout_s={seconds}).run())
"""


def draining(
    tmp_path: Path, drain: str, launcher: str, seconds: float = 20
) -> subprocess.Popen[bytes]:
    """A node whose engines are the children of a shell."""
    script = DRAINING.format(drain=drain, launcher=launcher, seconds=seconds)
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=ENVIRONMENT, cwd=tmp_path, stderr=subprocess.PIPE
    )
    eventually(lambda: (tmp_path / "engine").exists())
    process.send_signal(signal.SIGTERM)
    return process


ENGINE = (
    "trap 'kill $!' TERM;"
    "(touch engine; while [ ! -e drained ]; do sleep 0.05; done; touch ended) & wait"
)
"""A launcher with one engine, that ends when it is told to, and takes along what is left."""


def test_node_waits_until_its_engines_have_drained(tmp_path: Path) -> None:
    process = draining(tmp_path, "sleep 0.3; touch drained", ENGINE)
    assert finish(process) == 0
    assert (tmp_path / "ended").exists()


def test_node_that_cannot_be_drained_ends_all_the_same(tmp_path: Path) -> None:
    process = draining(tmp_path, "exit 1", ENGINE)
    assert finish(process) == 0
    assert not (tmp_path / "ended").exists()


def test_node_that_is_asked_twice_waits_no_more(tmp_path: Path) -> None:
    process = draining(tmp_path, "touch asked", ENGINE, seconds=1000)
    eventually(lambda: (tmp_path / "asked").exists())
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 0


def test_node_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli.node", "true"],
        env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "PENSTOCK_INTERNAL_TOKEN" in done.stderr or "PENSTOCK_LAUNCHER_SOCKET" in done.stderr
