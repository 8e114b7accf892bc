"""Keeps the pools: Ray Serve applications whose replicas are hosts, through Ray's REST.

Each pool is one application with one deployment. What Ray has is compared with the settings and
corrected; other applications are left as they are. Ray being away is an event, never a crash.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from models.errors import BadRequestError, UnreachableError
from serving.background import set_within
from serving.controller.events import EventLog
from serving.logs import get_logger

APPLICATIONS = "/api/serve/applications/"
IMPORT_PATH = "serving.engine.host:build_pool"
DEPLOYMENT = "EngineHost"
PREFIX = "penstock-"
"""Of our applications' names, so that others can live in the same cluster."""
CHECK_S = 5.0
SETTLING_S = 0.25
"""Between checks while Ray has not yet what the last check asked for."""
BACKOFF_S = (0.25, 0.5, 1.0)
REQUEST_TIMEOUT_S = 30.0
RETRY_FAILED_S = 30.0
AWAY_AFTER_S = 20.0
"""Ray may start with us, and takes some ten seconds: only after that its absence is an event."""
BROKEN = ("DEPLOY_FAILED", "UNHEALTHY")

log = get_logger(__name__)


class PoolArgs(TypedDict):
    """What `build_pool` is called with."""

    pool: str
    gpus: int
    num_cpus: float
    accelerator: str


class _Ray(BaseModel):
    """Ray's answers, of which we read little."""

    model_config = ConfigDict(extra="ignore")


class _Deployment(_Ray):
    target_num_replicas: int


class _Application(_Ray):
    status: str
    message: str = ""
    deployed_app_config: dict[str, Any] | None = None  # passed on as it came
    deployments: dict[str, _Deployment] = {}


class _Instance(_Ray):
    applications: dict[str, _Application] = {}


def pool_args(pool: str) -> PoolArgs:
    """The shape of a pool's hosts, from its name: `cpu`, `h200x1`, `gb200x4`, ...

    Raises:
        BadRequestError: If the name is not of this form.
    """
    if pool == "cpu":
        # A host only waits and watches, and its engine's cores are bounded by its own threads: one
        # of Ray's CPUs stands for one host, so that a node gets no more hosts than it is meant for.
        return PoolArgs(pool=pool, gpus=0, num_cpus=1.0, accelerator="cpu")
    accelerator, _, gpus = pool.rpartition("x")
    if not accelerator or not gpus.isdigit() or not int(gpus):
        raise BadRequestError(
            f"PENSTOCK_POOLS: {pool!r} is no shape", hint='as {"cpu": 2} or {"h200x8": 4}'
        )
    return PoolArgs(pool=pool, gpus=int(gpus), num_cpus=1.0, accelerator=accelerator)


class PoolKeeper:
    """Makes Ray have the pools, and go on having them.

    Args:
        pools: Hosts of each pool; read at each round, so it may change. None leaves it to Ray.
    """

    def __init__(
        self,
        pools: Mapping[str, int | None],
        dashboard_url: str,
        token_path: Path | None,
        events: EventLog,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._sizes = pools
        self._args = {f"{PREFIX}{pool}": pool_args(pool) for pool in pools}
        self._changed = asyncio.Event()
        self._token_path = token_path
        self._events = events
        self._trouble = ""
        self._put_s = float("-inf")
        self._client = httpx.AsyncClient(
            base_url=dashboard_url,
            timeout=REQUEST_TIMEOUT_S,
            transport=transport,
            trust_env=False,  # no proxy stands between the controller and Ray
        )

    def wake(self) -> None:
        """Has `run` look at the sizes at once."""
        self._changed.set()

    async def close(self) -> None:
        """Closes the connections to Ray; the pools stay."""
        await self._client.aclose()

    async def run(self) -> None:
        """Checks and corrects until it is cancelled."""
        failures, away_since_s = 0, None
        while True:
            now_s = time.monotonic()
            self._changed.clear()
            try:
                settled = await self.check(now_s)
            except UnreachableError as exc:
                log.info("ray_away", error=str(exc))
                away_since_s = now_s if away_since_s is None else away_since_s
                if now_s - away_since_s >= AWAY_AFTER_S:
                    self._note_trouble(str(exc))
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
            else:
                failures, away_since_s = 0, None
                await set_within(self._changed, CHECK_S if settled else SETTLING_S)

    async def check(self, now_s: float) -> bool:
        """One round at a monotonic time; True if there is nothing more to do.

        Raises:
            UnreachableError: If Ray does not answer, or refuses.
        """
        instance = await self._instance()
        if any(self._must_be_put(name, instance, now_s) for name in self._args):
            self._put_s = now_s
            await self._put(instance)
            return False
        settled, troubles = True, []
        for name, args in self._args.items():
            hosts = self._hosts(name)
            app = instance.applications[name]
            if app.status in BROKEN:
                troubles.append(f"pool {args['pool']}: {_first_line(app.message) or app.status}")
            deployment = app.deployments.get(DEPLOYMENT)
            if deployment is None:
                settled = settled and app.status in BROKEN
            elif hosts is not None and deployment.target_num_replicas != hosts:
                settled = False
                await self._scale(name, args["pool"], hosts)
        self._note_trouble("; ".join(troubles))
        return settled

    def _must_be_put(self, name: str, instance: _Instance, now_s: float) -> bool:
        app = instance.applications.get(name)
        if app is None or app.status == "DELETING" or app.deployed_app_config is None:
            return True
        if app.status == "DEPLOY_FAILED" and now_s - self._put_s >= RETRY_FAILED_S:
            return True  # Serve builds it once and leaves it; the same PUT has it built again
        has, wants = app.deployed_app_config, self._application(name)
        return any(has.get(key) != wants[key] for key in ("import_path", "args"))

    def _application(self, name: str, instance: _Instance | None = None) -> dict[str, object]:
        args, hosts = self._args[name], self._hosts(name)
        if hosts is None and instance is not None and name in instance.applications:
            deployment = instance.applications[name].deployments.get(DEPLOYMENT)
            hosts = None if deployment is None else deployment.target_num_replicas
        return {
            "name": name,
            "route_prefix": None,
            "import_path": IMPORT_PATH,
            "args": dict(args),
            "external_scaler_enabled": True,
            # Ray wants at least one here; the scale call right after it may say zero.
            "deployments": [{"name": DEPLOYMENT, "num_replicas": max(1, hosts or 0)}],
        }

    def _hosts(self, name: str) -> int | None:
        return self._sizes[self._args[name]["pool"]]

    async def _put(self, instance: _Instance) -> None:
        """Puts the whole list: an application that is missing from it would be deleted."""
        others = [
            app.deployed_app_config
            for name, app in instance.applications.items()
            if name not in self._args and app.deployed_app_config is not None
        ]
        ours = [self._application(name, instance) for name in self._args]
        body = {"proxy_location": "Disabled", "applications": [*others, *ours]}
        await self._call("PUT", APPLICATIONS, body)
        names = ", ".join(f"{pool} ({n})" for pool, n in self._sizes.items())
        self._events.record("pool_scaled", f"asked Ray for the pools {names}")

    async def _scale(self, name: str, pool: str, hosts: int) -> None:
        path = f"/api/v1/applications/{name}/deployments/{DEPLOYMENT}/scale"
        await self._call("POST", path, {"target_num_replicas": hosts})
        self._events.record("pool_scaled", f"pool {pool} shall have {hosts} hosts")

    async def _instance(self) -> _Instance:
        response = await self._call("GET", APPLICATIONS)
        try:
            return _Instance.model_validate_json(response.content)
        except ValidationError as exc:
            raise UnreachableError(f"Ray's answer was not understood: {exc.title}") from exc

    async def _call(self, method: str, path: str, body: object = None) -> httpx.Response:
        headers = {}
        try:
            if self._token_path is not None:
                token = await asyncio.to_thread(self._token_path.read_text, "utf-8")
                headers["authorization"] = f"Bearer {token.strip()}"
            response = await self._client.request(method, path, json=body, headers=headers)
        except (httpx.HTTPError, OSError) as exc:
            reason = str(exc) or type(exc).__name__
            raise UnreachableError(f"Ray's dashboard does not answer: {reason}") from exc
        if response.is_error:
            raise UnreachableError(
                f"Ray answered {response.status_code} to {method} {path}: "
                + _first_line(response.text)
            )
        return response

    def _note_trouble(self, trouble: str) -> None:
        """Records trouble once, when it begins or changes, and when it ends."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            self._events.record("pool_failed", trouble)
        else:
            self._events.record("pool_recovered", "Ray has all pools again")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
