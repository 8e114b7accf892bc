"""Ray on one machine: how its head is started for a platform, and when it is ready.

The only module of the command line that knows Ray; it starts Ray's own command and imports none
of it. Ray listens on loopback (but for a gRPC port of each Serve replica, which has no setting) and
all of it asks for the platform's own token.
"""

import shutil
import sys
from collections.abc import Mapping
from signal import SIGTERM
from typing import Protocol

from serving.cli import probes
from serving.cli.parts import PartSpec
from serving.cli.platform import Layout, secret

OBJECT_STORE_BYTES = 128 << 20
"""Hosts exchange small messages only; nothing of a model ever lies in Ray's object store."""

SPARE_CPUS = 4
"""Ray's CPUs beyond one for each host: Serve's controller and the builds of applications."""


class _RayParams(Protocol):
    ray_client_server_port: int | None


def without_client_server(params: _RayParams, _head: bool) -> None:
    """Ray's start hook (RAY_START_HOOK): no server for Ray Client, which nothing here uses.

    `ray start` has no flag for that, and the server costs 90 MB and a second of start.
    """
    params.ray_client_server_port = None


def make_spec(
    layout: Layout,
    environment: Mapping[str, str],
    *,
    dashboard_port: int,
    metrics_port: int,
    client_port: int,
    hosts: int,
    gpus: int = 0,
) -> PartSpec:
    """The head of a Ray cluster of one machine, for so many hosts.

    Args:
        environment: What Ray's processes inherit, and from them every worker, so hosts too.
    """
    token = secret(layout.ray_token_file)
    command = (
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        "--temp-dir", str(layout.ray_dir),
        "--node-ip-address", "127.0.0.1",
        "--port", "0",
        "--include-dashboard", "true",
        "--dashboard-host", "127.0.0.1",
        "--dashboard-port", str(dashboard_port),
        "--dashboard-agent-listen-port", "0",
        "--ray-client-server-port", str(client_port),
        "--min-worker-port", "0",
        "--max-worker-port", "0",
        "--num-cpus", str(hosts + SPARE_CPUS),
        "--num-gpus", str(gpus),
        "--object-store-memory", str(OBJECT_STORE_BYTES),
        "--include-log-monitor", "false",
        "--no-monitor",
        "--disable-usage-stats",
    )  # fmt: skip
    return PartSpec(
        name="ray",
        command=command,
        environment={
            **environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(layout.ray_token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            # The launcher bounds the engines' memory; Ray would kill hosts for it.
            "RAY_memory_monitor_refresh_ms": "0",
            # Ray replaces loopback by the machine's address unless it may not form a cluster.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # Streams are drained by the gateway before Ray is asked to go.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_START_HOOK": f"{__name__}.{without_client_server.__name__}",
            # Fixed by default, so that two platforms would meet there.
            "DASHBOARD_METRIC_PORT": str(metrics_port),
            "OMP_NUM_THREADS": "1",
        },
        folder=layout.data_dir,
        log_path=layout.log("ray"),
        # The dashboard's REST API scales the pools.
        is_ready=lambda: probes.is_ok(dashboard_port, "/api/version", token),
        # Ray's command ends all that it has started; if it were killed it could not.
        death_signal=SIGTERM,
        before_start=lambda: shutil.rmtree(layout.ray_dir, ignore_errors=True),
    )
