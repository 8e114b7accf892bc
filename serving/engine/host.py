"""The Ray Serve deployment of hosts: each replica holds its accelerators and runs a host's agent.

The only module here that imports Ray; it must never import vLLM. No request passes through Serve:
a replica is placed, restarted and health-checked by it, and nothing else.
"""

import platform
import time
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from models.cache import NodeCache
from serving import logs
from serving.engine.agent import HostAgent, Identity
from serving.engine.compile_cache import machine_of_this_node
from serving.engine.controller_client import ControllerClient
from serving.engine.engine_run import GONE_TIMEOUT_S
from serving.engine.launcher_client import SocketLauncher
from serving.engine.node_age import node_age_s
from serving.engine.nvml import GpuWatch, open_nvml
from serving.engine.surroundings import Surroundings
from serving.engine.weights import NodeWeights
from serving.settings import HostSettings, named_secrets

DEPLOYMENT = "EngineHost"


class PoolArgs(BaseModel):
    """What the application of one pool is built from."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    pool: str
    """Name of the pool: `cpu`, `h200x1`, ..."""
    accelerator: str = "cpu"
    """`cpu`, or the accelerator's name in lower case."""
    gpus: int = Field(default=0, ge=0)
    """Accelerators of each host."""
    num_cpus: float = Field(default=0.1, gt=0)
    """CPUs that Ray counts for each host."""


def build_pool(args: PoolArgs) -> Application:
    """The application of one pool; `serving.engine.host:build_pool` in Serve's declarative REST.

    The application is to be put with `external_scaler_enabled` and with no route; the number of
    hosts is then set through Serve's scale call.
    """
    drain_timeout_s = HostSettings.load().drain_timeout_s
    actor: dict[str, Any] = {"num_cpus": args.num_cpus, "num_gpus": args.gpus}
    if args.gpus:
        actor["accelerator_type"] = args.accelerator.upper()
    deployment = serve.deployment(
        EngineHost,
        name=DEPLOYMENT,
        ray_actor_options=actor,
        max_ongoing_requests=1,  # nobody calls a host
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        # Serve asks this often whether a replica may stop; 2 s by default.
        graceful_shutdown_wait_loop_s=0.1,
        # The longest way down: drain, then the launcher's way from SIGTERM to the last process.
        graceful_shutdown_timeout_s=drain_timeout_s + GONE_TIMEOUT_S + 5.0,
    )
    return deployment.bind(args.pool)


class EngineHost:
    """One host: an agent in the event loop of a Serve replica.

    Its settings come from the environment of its Ray node, where secrets may be; Serve's
    configuration is open to read.
    """

    def __init__(self, pool: str) -> None:
        logs.configure("host")
        settings = HostSettings.load()
        accelerators = tuple(str(gpu) for gpu in ray.get_gpu_ids())
        identity = Identity(
            host_id=f"{pool}-{serve.get_replica_context().replica_id.unique_id}",
            pool=pool,
            node=platform.node(),
            address=settings.engine_address,
            accelerators=accelerators,
            node_up_s=None if (age_s := node_age_s()) is None else time.monotonic() - age_s,
        )
        around = Surroundings(
            launcher=SocketLauncher(settings.launcher_socket),
            builds={n: SocketLauncher(path) for n, path in settings.build_sockets.items()},
            weights=NodeWeights(
                NodeCache(settings.cache_dir, settings.cache_bytes),
                named_secrets(settings.secrets_dir),
            ),
            log_dir=settings.log_dir,
            compile_dir=settings.cache_dir.absolute(),
            machine=machine_of_this_node(),
            address=settings.engine_address,
            accelerators=accelerators,
            drain_timeout_s=settings.drain_timeout_s,
            gpus=GpuWatch(open_nvml() if accelerators else None, accelerators).reports,
        )
        controller = ControllerClient(settings.controller_url, settings.internal_token)
        self._agent = HostAgent(identity, controller, around)
        self._agent.start()

    async def check_health(self) -> None:
        """Called by Serve each second; an exception has the replica replaced."""
        self._agent.check()

    async def __del__(self) -> None:
        """Awaited by Serve before it ends the replica: drains and ends the engine."""
        await self._agent.close()
