"""The controller's internal API on loopback, with a table that tests write."""

import asyncio
import hashlib
import time
from typing import Any

from aiohttp import web

from serving.controller.shares import ShareBook
from serving.identities import LimitRecord
from serving.metered import UsageBatch, UsageReceipt, UsageRow
from serving.protocol import (
    DemandReply,
    DemandReport,
    EndpointRoute,
    IdentitiesDelta,
    KeyRecord,
    ModelRoute,
    ModelState,
    Role,
    RoutesDelta,
)
from serving.shares import FIELD_OF, MeterKind, ShareReport

TOKEN = "internal-token"
TENANT_KEY = "sk-tenant-0123456789"
ADMIN_KEY = "pa-admin-0123456789"


def record_of(key: str, role: Role, key_id: str = "key-1") -> KeyRecord:
    salt = f"salt-of-{key_id}"
    digest = hashlib.sha256((salt + key).encode()).hexdigest()
    return KeyRecord(
        key_id=key_id, name=key_id, role=role, prefix=key[:10], salt=salt, digest=digest
    )


KEYS = (record_of(TENANT_KEY, Role.INFERENCE), record_of(ADMIN_KEY, Role.ADMIN, "key-2"))


def model(
    name: str = "demo",
    *endpoints: EndpointRoute,
    state: ModelState | None = None,
    reason: str = "",
) -> ModelRoute:
    state = state or (ModelState.READY if endpoints else ModelState.ASLEEP)
    return ModelRoute(
        name=name, state=state, reason=reason, created=1_700_000_000, max_model_len=512,
        endpoints=endpoints,
    )  # fmt: skip


class FakeController:
    """Long polls, demand with leases, and an echo for the admin API."""

    def __init__(self) -> None:
        self.routes = RoutesDelta(version=1, full=True)
        self.identities = IdentitiesDelta(version=1, full=True, keys=KEYS)
        self.leases: dict[str, int] = {}
        self.killed: tuple[str, ...] = ()  # engine_ids, as gateways are told
        self.shares: ShareBook | None = ShareBook(self._limit_of, time.monotonic(), grace_s=0)
        self.reports: list[DemandReport] = []
        self.usage: dict[str, UsageRow] = {}
        self.database_down = False
        self.reported = asyncio.Event()
        self.admin_requests: list[dict[str, Any]] = []
        self.port = 0
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set_routes(self, *models: ModelRoute) -> None:
        self.routes = RoutesDelta(version=self.routes.version + 1, full=True, models=models)
        self._wake()

    def set_keys(self, *keys: KeyRecord) -> None:
        version = self.identities.version + 1
        self.identities = IdentitiesDelta(version=version, full=True, keys=keys)
        self._wake()

    def set_limits(self, *limits: LimitRecord) -> None:
        self.identities = self.identities.model_copy(
            update={"version": self.identities.version + 1, "limits": limits}
        )
        self._wake()

    def _limit_of(self, limit_id: str, kind: MeterKind) -> int | None:
        for limit in self.identities.limits:
            if limit.limit_id == limit_id:
                value: int | None = getattr(limit, FIELD_OF[kind])
                return value
        return None

    def queued(self, name: str = "demo") -> int:
        """What the last report said."""
        models = self.reports[-1].models if self.reports else ()
        return sum(one.queued for one in models if one.model == name)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/internal/v1/routes", self._routes)
        app.router.add_get("/internal/v1/identities", self._identities)
        app.router.add_post("/internal/v1/demand", self._demand)
        app.router.add_post("/internal/v1/limits", self._limits)
        app.router.add_post("/internal/v1/usage", self._usage)
        app.router.add_route("*", "/admin/v1/{path:.*}", self._admin)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            self._wake()
            await self._runner.cleanup()
            self._runner = None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_past(self, request: web.Request, what: str) -> RoutesDelta | IdentitiesDelta:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise web.HTTPUnauthorized
        current: RoutesDelta | IdentitiesDelta = getattr(self, what)
        if int(request.query["after"]) == current.version:
            await self._changed.wait()
        now: RoutesDelta | IdentitiesDelta = getattr(self, what)
        return now

    async def _routes(self, request: web.Request) -> web.Response:
        delta = await self._wait_past(request, "routes")
        return web.Response(text=delta.model_dump_json(), content_type="application/json")

    async def _identities(self, request: web.Request) -> web.Response:
        delta = await self._wait_past(request, "identities")
        return web.Response(text=delta.model_dump_json(), content_type="application/json")

    async def _demand(self, request: web.Request) -> web.Response:
        self.reports.append(DemandReport.model_validate_json(await request.read()))
        self.reported.set()
        reply = DemandReply(leases=self.leases, killed=self.killed)
        return web.Response(text=reply.model_dump_json())

    async def _usage(self, request: web.Request) -> web.Response:
        if self.database_down:
            raise web.HTTPServiceUnavailable
        batch = UsageBatch.model_validate_json(await request.read())
        new = [row for row in batch.rows if row.usage_id not in self.usage]
        self.usage.update({row.usage_id: row for row in new})
        return web.Response(text=UsageReceipt(new=len(new)).model_dump_json())

    async def _limits(self, request: web.Request) -> web.Response:
        if self.shares is None:
            raise web.HTTPServiceUnavailable
        report = ShareReport.model_validate_json(await request.read())
        reply = self.shares.report(report, time.monotonic())
        return web.Response(text=reply.model_dump_json())

    async def _admin(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.admin_requests.append({
            "method": request.method, "path": request.raw_path, "headers": dict(request.headers),
            "body": body,
        })  # fmt: skip
        response = web.StreamResponse(status=201, headers={"X-Kept": "yes"})
        await response.prepare(request)
        for part in (b"one ", b"two"):
            await response.write(part)
        return response
