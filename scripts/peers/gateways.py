"""The gateways that are measured, each as a process of its own before one upstream."""

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from scripts.peers.processes import Peer, answers, free_port, is_alive, spawned
from serving.identities import LimitRecord, TokenPrice
from serving.protocol import EndpointRoute, IdentitiesDelta
from tests.serving.gateway.fake_controller import (
    KEYS,
    TENANT_KEY,
    TOKEN,
    FakeController,
    model,
)

NGINX = """
daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream engine {{ server {upstream}; keepalive 1024; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://engine; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_buffering off; keepalive_requests 1000000;
      {authorization} }}
  }}
}}
"""
LITELLM = """
model_list:
  - model_name: demo
    litellm_params:
      {{model: openai/demo, api_base: "{upstream}/v1", api_key: {token}}}
litellm_settings: {{telemetry: false, drop_params: false}}
general_settings: {{master_key: sk-bench}}
"""


PLENTY = 10**9
LIMITS = tuple(
    LimitRecord(
        limit_id=f"limit:{scope}:*", scope_id=scope, requests_per_min=PLENTY,
        input_tokens_per_min=PLENTY, output_tokens_per_min=PLENTY, concurrent=PLENTY,
        budget_day=10**18, budget_month=10**19,
    )
    for scope in ("key-1", "proj-1", "org-1")
)  # fmt: skip
"""All kinds on all scopes: 18 meters for each request."""

PRICES = (TokenPrice(price_id="price-1", input=1_000_000, cached=100_000, output=4_000_000),)


class Park:
    """Starts gateways; all are stopped when the stack closes.

    Args:
        folder: Of their files and logs.
        venvs: Where setup.sh has installed them.
        upstream: URL of the server of model `demo` that they stand before.
        stack: Closes what is started.
        token: What that server wants to see; empty: nothing.
    """

    def __init__(
        self, folder: Path, venvs: Path, upstream: str, stack: AsyncExitStack, token: str = ""
    ) -> None:
        self._folder = folder
        self._venvs = venvs
        self._upstream = upstream
        self._stack = stack
        self._token = token

    async def start(self, name: str) -> Peer | None:
        """One gateway by its name; None where it is not installed.

        Raises:
            PeerError: If it does not serve.
        """
        starter = {
            "penstock": self._penstock, "nginx": self._nginx, "rust_router": self._rust_router,
            "litellm": self._litellm, "penstock_on": self._penstock_on,
            "penstock_off": self._penstock_off,
        }[name]  # fmt: skip
        peer = await starter()
        if peer is not None:
            await answers(peer.url, peer.key, lambda: peer.serves)
        return peer

    async def _spawn(
        self, name: str, port: int, key: str, command: Sequence[str], env: dict[str, str]
    ) -> Peer:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        process = await self._stack.enter_async_context(
            spawned(name, command, self._folder, clean | env)
        )
        return Peer(name, f"http://127.0.0.1:{port}", key, process)

    async def _penstock(self) -> Peer:
        return await self._ours("penstock", FakeController(), "serving.gateway.app", {})

    async def _penstock_on(self) -> Peer:
        """With limits on key, project and organisation, prices, budgets, and sums by tenant."""
        controller = FakeController()
        key = KEYS[0].model_copy(update={"org_id": "org-1", "project_id": "proj-1"})
        controller.identities = IdentitiesDelta(
            version=2, full=True, keys=(key,), limits=LIMITS, prices=PRICES
        )
        env = {"PENSTOCK_METRICS_BY_TENANT": "true"}
        return await self._ours("penstock_on", controller, "serving.gateway.app", env)

    async def _penstock_off(self) -> Peer:
        """Without limits and metering."""
        return await self._ours("penstock_off", FakeController(), "scripts.peers.untolled", {})

    async def _ours(
        self, name: str, controller: FakeController, module: str, more: dict[str, str]
    ) -> Peer:
        await controller.start()
        self._stack.push_async_callback(controller.stop)
        route = EndpointRoute(
            engine_id="up", url=self._upstream, token=self._token or "t", revision=1, slots=4096,
        )  # fmt: skip
        controller.leases = {"up": 4096}
        controller.set_routes(model("demo", route))
        port = free_port()
        env = {
            "PENSTOCK_GATEWAY_PORT": str(port), "PENSTOCK_CONTROLLER_URL": controller.url,
            "PENSTOCK_INTERNAL_TOKEN": TOKEN,
            "PENSTOCK_GATEWAY_STATE_DIR": str(self._folder / f"state-{name}"),
            "PENSTOCK_MAX_QUEUED": "10000",
        }  # fmt: skip
        return await self._spawn(name, port, TENANT_KEY, [sys.executable, "-m", module], env | more)

    async def _nginx(self) -> Peer | None:
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if binary is None:
            return None
        port = free_port()
        config = self._folder / "nginx.conf"
        address = urlsplit(self._upstream).netloc
        authorization = (
            f'proxy_set_header Authorization "Bearer {self._token}";' if self._token else ""
        )
        config.write_text(
            NGINX.format(
                folder=self._folder, port=port, upstream=address, authorization=authorization
            )
        )
        command = [binary, "-c", str(config), "-p", str(self._folder)]
        return await self._spawn("nginx", port, "none", command, {})

    async def _rust_router(self) -> Peer | None:
        """Shows no token where it looks whether a server lives: that has to ask for none."""
        python = self._venvs / "rust-router/bin/python"
        if not python.exists():
            return None
        port = free_port()
        command = [
            str(python), "-m", "sglang_router.launch_router", "--host", "127.0.0.1",
            "--port", str(port), "--worker-urls", self._upstream,
            "--policy", "round_robin", "--prometheus-port", str(free_port()),
            "--max-concurrent-requests", "4096",
        ]  # fmt: skip
        return await self._spawn("rust_router", port, "none", command, {})

    async def _litellm(self) -> Peer | None:
        binary = self._venvs / "litellm/bin/litellm"
        if not binary.exists():
            return None
        port = free_port()
        config = self._folder / "litellm.yaml"
        config.write_text(LITELLM.format(upstream=self._upstream, token=self._token or "none"))
        env = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False",
            "DISABLE_ADMIN_UI": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "*",
            "PYTHONPATH": "",
        }  # fmt: skip
        command = [
            str(binary), "--config", str(config), "--host", "127.0.0.1", "--port", str(port),
            "--num_workers", "1", "--telemetry", "False",
        ]  # fmt: skip
        return await self._spawn("litellm", port, "sk-bench", command, env)


@asynccontextmanager
async def upstream(folder: Path) -> AsyncIterator[tuple[int, psutil.Process]]:
    """The upstream's port and process."""
    port = free_port()
    command = [sys.executable, "-m", "scripts.peers.upstream", str(port)]
    async with spawned("upstream", command, folder) as process:
        await answers(f"http://127.0.0.1:{port}", "none", lambda: is_alive(process))
        yield port, process


def describe(folder: Path, name: str) -> str:
    """The end of what a gateway said, for a failure."""
    log = folder / f"{name}.log"
    return json.dumps(log.read_text(errors="replace")[-1500:] if log.exists() else "")
