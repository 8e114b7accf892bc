"""What each part of a platform on one machine is: its command, its environment, its readiness."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.cli import probes, ray_node
from serving.cli.parts import PartSpec
from serving.cli.platform import MARK_VARIABLE, Layout
from serving.settings import PREFIX, SECRET_PREFIX

HIDDEN = ("API_KEY", "ADMIN_KEY", "URL")
"""Settings of the caller that no part needs to know."""

ALIVE_TIMEOUT_S = 3.0
"""How long a part may take to tell that it is well, on a machine with much to do."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """All parts of one platform, before they run."""

    layout: Layout
    ports: Mapping[str, int]
    mark: str
    internal_token: str
    hosts: int
    environment: Mapping[str, str]
    """The caller's environment."""
    builds: Mapping[str, Path] = field(default_factory=dict)
    """Python interpreters of further engine builds, by name."""
    pool: str = "cpu"
    """Shape of the hosts."""

    @property
    def gpus(self) -> int:
        """GPUs that the hosts take, one each."""
        return 0 if self.pool == "cpu" else self.hosts

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['gateway']}"

    @property
    def controller_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['controller']}"

    def launchers(self) -> list[PartSpec]:
        """The launcher of the platform's own engine build, and those of further ones."""
        own = self._launcher("launcher", self.layout.launcher_socket, sys.executable)
        return [own] + [
            self._launcher(f"launcher-{build}", self.layout.build_socket(build), str(python))
            for build, python in self.builds.items()
        ]

    def _launcher(self, name: str, path: Path, python: str) -> PartSpec:
        """Imports vLLM and forks engines."""
        return PartSpec(
            name=name,
            command=(python, "-m", "serving.engine.launcher"),
            # One OpenMP thread for each engine: two engines with two each would block each other.
            environment=self._base()
            | {"PENSTOCK_LAUNCHER_SOCKET": str(path), "OMP_NUM_THREADS": "1"},
            folder=self.layout.data_dir,
            log_path=self.layout.log(name),
            is_ready=lambda: probes.accepts(path),
        )

    def ray(self) -> PartSpec:
        """Runs the hosts, which inherit what stands here in their environment."""
        return ray_node.make_spec(
            self.layout,
            self._inside()
            | self._secrets()
            | {
                "PENSTOCK_LAUNCHER_SOCKET": str(self.layout.launcher_socket),
                "PENSTOCK_BUILD_SOCKETS": json.dumps(
                    {build: str(self.layout.build_socket(build)) for build in self.builds}
                ),
                "PENSTOCK_CACHE_DIR": str(self.layout.cache_dir),
                "PENSTOCK_LOG_DIR": str(self.layout.logs_dir),
            },
            dashboard_port=self.ports["dashboard"],
            metrics_port=self.ports["ray-metrics"],
            client_port=self.ports["ray-client"],
            hosts=self.hosts,
            gpus=self.gpus,
        )

    def controller(self) -> PartSpec:
        """Keeps the registry and binds engines to hosts."""
        return PartSpec(
            name="controller",
            command=module("serving.controller.app"),
            environment=self._inside()
            | self._secrets()
            | {
                "PENSTOCK_DATABASE_URL": self.layout.database_url,
                "PENSTOCK_CONTROLLER_HOST": "127.0.0.1",
                "PENSTOCK_CONTROLLER_PORT": str(self.ports["controller"]),
                "PENSTOCK_RAY_DASHBOARD_URL": f"http://127.0.0.1:{self.ports['dashboard']}",
                "PENSTOCK_RAY_TOKEN_PATH": str(self.layout.ray_token_file),
                "PENSTOCK_POOLS": json.dumps({self.pool: self.hosts}),
                "PENSTOCK_PROFILES_DIR": self.environment.get("PENSTOCK_PROFILES_DIR")
                or str(self.layout.profiles_dir),
            },
            folder=self.layout.data_dir,
            log_path=self.layout.log("controller"),
            is_ready=lambda: probes.is_ok(self.ports["controller"], "/health"),
            is_alive=lambda: self._is_alive("controller"),
        )

    def gateway(self, drain_timeout_s: float) -> PartSpec:
        """Answers tenants."""
        return PartSpec(
            name="gateway",
            command=module("serving.gateway.app"),
            environment=self._inside()
            | {
                "PENSTOCK_GATEWAY_HOST": "127.0.0.1",
                "PENSTOCK_GATEWAY_PORT": str(self.ports["gateway"]),
                "PENSTOCK_GATEWAY_STATE_DIR": str(self.layout.gateway_dir),
            },
            folder=self.layout.data_dir,
            log_path=self.layout.log("gateway"),
            is_ready=lambda: probes.is_ok(self.ports["gateway"], "/ready"),
            is_alive=lambda: self._is_alive("gateway"),
            stop_timeout_s=drain_timeout_s + 5.0,
        )

    def _is_alive(self, part: str) -> bool:
        """Whether a server's event loop turns; nobody is looked after while this waits."""
        return probes.is_ok(self.ports[part], "/health", timeout_s=ALIVE_TIMEOUT_S)

    def _base(self) -> dict[str, str]:
        """The caller's settings go through; its keys do not, nor what it tells another Ray."""
        hidden = {PREFIX + name for name in HIDDEN}
        kept = {
            name: value
            for name, value in self.environment.items()
            if name not in hidden and not name.startswith(("RAY_", SECRET_PREFIX))
        }
        return kept | {
            f"{PREFIX}DATA_DIR": str(self.layout.data_dir),
            MARK_VARIABLE: self.mark,
            "PYTHONUNBUFFERED": "1",
        }

    def _secrets(self) -> dict[str, str]:
        """For the parts that read sources; engines run other people's code, and get none."""
        kept = {k: v for k, v in self.environment.items() if k.startswith(SECRET_PREFIX)}
        return kept | {"PENSTOCK_SECRETS_DIR": str(self.layout.data_dir / "secrets")}

    def _inside(self) -> dict[str, str]:
        """For the parts that talk to the controller."""
        return self._base() | {
            "PENSTOCK_CONTROLLER_URL": self.controller_url,
            "PENSTOCK_INTERNAL_TOKEN": self.internal_token,
        }


def of_caller(
    layout: Layout,
    ports: Mapping[str, int],
    mark: str,
    internal_token: str,
    hosts: int,
    builds: Mapping[str, Path],
    pool: str = "cpu",
) -> Blueprint:
    """The blueprint for the environment of this process."""
    environment = dict(os.environ)
    return Blueprint(layout, ports, mark, internal_token, hosts, environment, builds, pool)


def module(name: str) -> tuple[str, ...]:
    """The command that runs a module with this very Python."""
    return (sys.executable, "-m", name)
