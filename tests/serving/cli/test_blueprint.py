"""What each part is told: the settings it needs, and nobody's keys."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.cli.blueprint import Blueprint
from serving.cli.guide import builtin_manifest
from serving.cli.parts import PartSpec
from serving.cli.platform import MARK_VARIABLE, Layout
from serving.settings import ControllerSettings, GatewaySettings, HostSettings, LauncherSettings

PORTS = {"gateway": 1, "controller": 2, "dashboard": 3, "ray-metrics": 4, "ray-client": 5}


@pytest.fixture
def plan(tmp_path: Path) -> Blueprint:
    caller = {
        "PATH": "/bin",
        "PENSTOCK_API_KEY": "pk-secret",
        "PENSTOCK_ADMIN_KEY": "pa-secret",
        "PENSTOCK_URL": "http://elsewhere",
        "PENSTOCK_MAX_QUEUED": "17",
        "RAY_ADDRESS": "elsewhere:6379",
    }
    layout = Layout(tmp_path / "data", tmp_path / "run")
    layout.make()
    return Blueprint(layout, PORTS, "the-mark", "the-token", 3, caller)


def parts(plan: Blueprint) -> list[PartSpec]:
    return [*plan.launchers(), plan.ray(), plan.controller(), plan.gateway(30.0)]


def test_no_part_gets_a_key_or_another_ray(plan: Blueprint) -> None:
    for part in parts(plan):
        told = " ".join([*part.environment, *part.environment.values()])
        assert "secret" not in told.replace(str(plan.layout.data_dir / "secrets"), "")
        assert "elsewhere" not in told
        assert part.environment["PATH"] == "/bin"


def test_every_part_bears_mark_and_folder(plan: Blueprint) -> None:
    for part in parts(plan):
        assert part.environment[MARK_VARIABLE] == "the-mark"
        assert part.environment["PENSTOCK_DATA_DIR"] == str(plan.layout.data_dir)
        assert part.folder == plan.layout.data_dir
        assert part.log_path.parent == plan.layout.logs_dir


def test_launcher_does_not_know_the_internal_token(plan: Blueprint) -> None:
    assert "the-token" not in plan.launchers()[0].environment.values()


def test_hosts_on_gpus_are_a_pool_of_their_shape(plan: Blueprint) -> None:
    on_gpus = replace(plan, pool="h200x1")
    assert json.loads(on_gpus.controller().environment["PENSTOCK_POOLS"]) == {"h200x1": 3}
    for each, gpus in ((plan, "0"), (on_gpus, "3")):
        command = each.ray().command
        assert command[command.index("--num-gpus") + 1] == gpus


def test_parts_can_load_their_settings(plan: Blueprint, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(part: PartSpec) -> None:
        for name, value in part.environment.items():
            monkeypatch.setenv(name, value)

    load(plan.controller())
    controller = ControllerSettings.load()
    assert controller.pools == {"cpu": 3}
    assert controller.controller_port == 2
    assert controller.ray_dashboard_url == "http://127.0.0.1:3"
    load(plan.gateway(30.0))
    gateway = GatewaySettings.load()
    assert gateway.controller_url == "http://127.0.0.1:2"
    assert gateway.max_queued == 17
    load(plan.ray())
    host = HostSettings.load()
    assert host.launcher_socket.is_absolute()
    assert host.cache_dir.is_absolute()
    assert host.log_dir.is_absolute()
    load(plan.launchers()[0])
    assert LauncherSettings.load().launcher_socket == host.launcher_socket


def test_ray_is_private(plan: Blueprint) -> None:
    ray = plan.ray()
    assert ray.environment["RAY_AUTH_MODE"] == "token"
    assert ray.environment["RAY_USAGE_STATS_ENABLED"] == "0"
    command = " ".join(ray.command)
    assert "--dashboard-host 127.0.0.1" in command
    assert f"--temp-dir {plan.layout.ray_dir}" in command
    assert json.loads(plan.controller().environment["PENSTOCK_POOLS"]) == {"cpu": 3}


def test_builtin_manifest_sleeps_and_wakes() -> None:
    manifest = builtin_manifest()
    assert manifest.source == "builtin://guide"
    assert manifest.scaling.min == 0


def test_named_secrets_go_to_those_who_read_sources_alone(tmp_path: Path) -> None:
    caller = {"PATH": "/bin", "PENSTOCK_SECRET_HUB": "hf_value"}
    layout = Layout(tmp_path / "data", tmp_path / "run")
    layout.make()
    plan = Blueprint(layout, PORTS, "the-mark", "the-token", 3, caller)
    knowing = [part.name for part in parts(plan) if "PENSTOCK_SECRET_HUB" in part.environment]
    assert sorted(knowing) == ["controller", "ray"]


def test_each_further_build_has_a_launcher_of_its_own_that_hosts_know(plan: Blueprint) -> None:
    both = replace(plan, builds={"old": Path("/opt/old/bin/python")})
    own, old = both.launchers()
    assert (own.name, old.name) == ("launcher", "launcher-old")
    assert old.command[0] == "/opt/old/bin/python"
    assert own.log_path != old.log_path
    told = json.loads(both.ray().environment["PENSTOCK_BUILD_SOCKETS"])
    assert told == {"old": old.environment["PENSTOCK_LAUNCHER_SOCKET"]}
    assert told["old"] != own.environment["PENSTOCK_LAUNCHER_SOCKET"]


class Healthy(BaseHTTPRequestHandler):
    """Is well, and knows nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def test_gateway_and_controller_are_asked_for_their_health(
    plan: Blueprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        asked = replace(plan, ports=PORTS | dict.fromkeys(PORTS, server.server_port))
        assert asked.gateway(1.0).is_alive()
        assert asked.controller().is_alive()
        server.shutdown()
        serving.join()
        # From now on the kernel accepts, and nobody answers.
        monkeypatch.setattr("serving.cli.blueprint.ALIVE_TIMEOUT_S", 0.05)
        assert not asked.gateway(1.0).is_alive()
    assert not asked.controller().is_alive()
    assert asked.ray().is_alive()
