"""A controller that is served over HTTP, with hosts and gateways that speak its protocol."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from serving.controller.app import create_app
from serving.controller.context import Controller
from serving.controller.keys import ensure_keys_async
from serving.controller.server import Server, listen
from serving.protocol import (
    Assignment,
    DemandReply,
    DemandReport,
    EnginePhase,
    EngineReport,
    HostAdmission,
    HostReport,
    IdentitiesDelta,
    ModelDemand,
    ModelRoute,
    RoutesDelta,
)
from serving.settings import ControllerSettings
from tests.serving.controller.world import engine_report, registration

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""An empty context: to load the system's certificates would take longer than most tests."""
ADMIN_KEY = "pa-the-operator"
API_KEY = "pk-the-tenant"


@dataclass
class Served:
    """The controller and clients with each of its keys."""

    controller: Controller
    admin: httpx.AsyncClient
    tenant: httpx.AsyncClient
    anonymous: httpx.AsyncClient
    internal: httpx.AsyncClient

    async def deploy(self, name: str = "guide", **fields: Any) -> httpx.Response:
        body = {"name": name, "source": "builtin://guide", **fields}
        return await self.admin.post("/admin/v1/models", json=body)

    async def routes(self, after: int = 0) -> RoutesDelta:
        response = await self.internal.get("/internal/v1/routes", params={"after": after})
        assert response.status_code == 200, response.text
        return RoutesDelta.model_validate_json(response.content)

    async def identities(self, after: int = 0) -> IdentitiesDelta:
        response = await self.internal.get("/internal/v1/identities", params={"after": after})
        return IdentitiesDelta.model_validate_json(response.content)

    async def demand(
        self, queued: int = 0, model: str = "guide", gateway: str = "gw", **fields: Any
    ) -> DemandReply:
        demand = ModelDemand(model=model, queued=queued, start_id="req-1", **fields)
        report = DemandReport(gateway_id=gateway, models=(demand,))
        response = await self.internal.post("/internal/v1/demand", content=report.model_dump_json())
        return DemandReply.model_validate_json(response.content)

    async def host(self, host_id: str, engine: EngineReport | None = None) -> "ServedHost":
        response = await self.internal.post(
            "/internal/v1/hosts/register",
            content=registration(host_id, engine=engine).model_dump_json(),
        )
        assert HostAdmission.model_validate_json(response.content).known
        return ServedHost(host_id, self)

    async def route_that(
        self, fits: Callable[[ModelRoute], bool], model: str = "guide", version: int = 0
    ) -> RoutesDelta:
        """Follows the routes until the model's fits, as a gateway does."""
        while True:
            delta = await self.routes(version)
            version = delta.version
            if any(route.name == model and fits(route) for route in delta.models):
                return delta


@dataclass
class ServedHost:
    """A host that does by HTTP what the test tells it to."""

    host_id: str
    served: Served
    assignment: Assignment = field(default_factory=lambda: Assignment(version=0))

    async def poll(self) -> Assignment:
        response = await self.served.internal.get(
            f"/internal/v1/hosts/{self.host_id}/assignment",
            params={"after": self.assignment.version},
        )
        assert response.status_code == 200, response.text
        self.assignment = Assignment.model_validate_json(response.content)
        return self.assignment

    async def told_to_run(self) -> "ServedHost":
        while (await self.poll()).engine is None:
            continue
        return self

    async def told_to_stop(self) -> "ServedHost":
        while (await self.poll()).engine is not None:
            continue
        return self

    async def report(self, phase: EnginePhase | None, **fields: Any) -> bool:
        engine = None
        if phase is not None:
            assert self.assignment.engine is not None
            engine = engine_report(self.assignment.engine, phase, **fields)
        response = await self.served.internal.post(
            f"/internal/v1/hosts/{self.host_id}/report",
            content=HostReport(engine=engine).model_dump_json(),
        )
        return HostAdmission.model_validate_json(response.content).known


@asynccontextmanager
async def serve(settings: ControllerSettings) -> AsyncIterator[Served]:
    """A controller on a free port of the loopback, with both keys installed."""
    await ensure_keys_async(settings.database_url, ADMIN_KEY, API_KEY)
    app = create_app(settings)
    sock = listen("127.0.0.1", 0)
    server = Server(app)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started and not task.done():  # noqa: ASYNC110  # uvicorn has no event
        await asyncio.sleep(0.005)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"

    def client(key: str | None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=30, verify=NO_TLS)

    token = settings.internal_token.get_secret_value()
    try:
        async with (
            client(ADMIN_KEY) as admin,
            client(API_KEY) as tenant,
            client(None) as anonymous,
            client(token) as internal,
        ):
            yield Served(app.state.controller, admin, tenant, anonymous, internal)
    finally:
        server.should_exit = True
        await task
