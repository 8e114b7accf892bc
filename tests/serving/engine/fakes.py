"""Stand-ins for what surrounds a host: a launcher, an engine's HTTP server, a controller."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from fastapi import FastAPI, Response

from models.errors import PenstockError, UnreachableError
from models.manifest import AdapterSpec, Manifest, parse_manifest
from models.sources import Have
from serving.engine.launch_protocol import Event, Exited, Forked, Reached, SpawnRequest
from serving.protocol import (
    Assignment,
    EngineAssignment,
    EnginePhase,
    EngineReport,
    FetchReport,
    HostAdmission,
    HostRegistration,
    HostReport,
    StartPhase,
)

FORKED = Forked(pid=4711, port=40000, mode="fork", at=10.0)
WEIGHTS = Reached(phase=StartPhase.WEIGHTS, at=11.0)
ENGINE_READY = Reached(phase=StartPhase.ENGINE_READY, at=12.0)
PROBED = Reached(phase=StartPhase.PROBED, at=13.0, max_model_len=2048)
BIRTH = (FORKED, WEIGHTS, ENGINE_READY, PROBED)


def manifest(**engine: object) -> Manifest:
    """A model named tiny."""
    return parse_manifest({"name": "tiny", "source": "file:///weights", "engine": engine})


def assignment(engine_id: str = "e1", **engine: object) -> EngineAssignment:
    """An engine of revision 3 of that model."""
    return EngineAssignment(
        engine_id=engine_id, revision=3, manifest=manifest(**engine), start_id=f"start-{engine_id}"
    )


class FakeLease:
    """An engine that does what the test says."""

    def __init__(self, request: SpawnRequest, birth: tuple[Event, ...]) -> None:
        self.request = request
        self.given_up = False
        self.closed = False
        self._coming: asyncio.Queue[Event | None] = asyncio.Queue()
        for event in birth:
            self._coming.put_nowait(event)

    async def events(self) -> AsyncIterator[Event]:
        while (event := await self._coming.get()) is not None:
            yield event
            if isinstance(event, Exited):
                return

    def say(self, event: Event) -> None:
        self._coming.put_nowait(event)

    def vanish(self) -> None:
        """As if the launcher had died."""
        self._coming.put_nowait(None)

    def give_up(self) -> None:
        self.given_up = True
        self._coming.put_nowait(Exited(signal="SIGTERM", cause="asked to"))

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeLauncher:
    """A launcher whose engines are born as `birth` says, after being away for some calls."""

    birth: tuple[Event, ...] = BIRTH
    away_for: int = 0
    leases: list[FakeLease] = field(default_factory=list)
    spawned: asyncio.Event = field(default_factory=asyncio.Event)

    async def spawn(self, request: SpawnRequest) -> FakeLease:
        if self.away_for:
            self.away_for -= 1
            raise UnreachableError("no launcher listens")
        self.leases.append(FakeLease(request, self.birth))
        self.spawned.set()
        return self.leases[-1]


@dataclass
class FakeEngine:
    """The HTTP server of an engine."""

    healthy: bool = True
    completions_status: int = 200
    turn_status: int = 200
    adapters: dict[str, str] = field(default_factory=dict)
    in_flight: int = 0
    seen: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._handle)

    async def wait_for(self, path: str) -> None:
        """Until the path is asked for, after what was seen was cleared."""
        async with asyncio.timeout(30):
            while path not in self.seen:
                await self._asked.wait()
                self._asked.clear()

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request.url.path)
        self._asked.set()
        self.tokens.add(request.headers["authorization"])
        match request.url.path:
            case "/health":
                return httpx.Response(200 if self.healthy else 503)
            case "/v1/models":
                return httpx.Response(200, json={"data": [{"id": "tiny", "max_model_len": 2048}]})
            case "/v1/completions":
                assert json.loads(request.content)["max_tokens"] == 1
                return httpx.Response(self.completions_status, json={})
            case "/sleep" | "/wake_up" | "/collective_rpc" | "/reset_prefix_cache":
                return httpx.Response(self.turn_status, json={})
            case "/v1/load_lora_adapter":
                asked = json.loads(request.content)
                self.adapters[asked["lora_name"]] = asked["lora_path"]
                return httpx.Response(200, text="Success")
            case "/v1/unload_lora_adapter":
                self.adapters.pop(json.loads(request.content)["lora_name"], None)
                return httpx.Response(200, text="Success")
            case "/penstock/in_flight":
                return httpx.Response(200, json={"in_flight": self.in_flight})
        return httpx.Response(404)


class FakeController:
    """The host side of `/internal/v1`, with one host's assignment in the test's hand."""

    def __init__(self) -> None:
        self.assignment = Assignment(version=1)
        self.registrations: list[HostRegistration] = []
        self.reports: list[EngineReport | None] = []
        self.known = False
        self.away = False
        self._changed = asyncio.Condition()
        self.app = FastAPI()
        self.app.post("/internal/v1/hosts/register")(self._register)
        self.app.get("/internal/v1/hosts/{host_id}/assignment")(self._assignment)
        self.app.post("/internal/v1/hosts/{host_id}/report")(self._report)

    def transport(self) -> httpx.AsyncBaseTransport:
        return _Away(self)

    async def assign(
        self, engine: EngineAssignment | None, prefetch: tuple[Manifest, ...] = ()
    ) -> None:
        async with self._changed:
            self.assignment = Assignment(
                version=self.assignment.version + 1, engine=engine, prefetch=prefetch
            )
            self._changed.notify_all()

    async def leave(self) -> None:
        """Ends the long polls, so that a server can go down."""
        async with self._changed:
            self.away = True
            self._changed.notify_all()

    async def wait_for_phase(
        self, phase: EnginePhase, engine_id: str = "e1", timeout_s: float = 30
    ) -> EngineReport:
        async with asyncio.timeout(timeout_s), self._changed:
            while True:
                for report in self.reports:
                    if report and (report.engine_id, report.phase) == (engine_id, phase):
                        return report
                await self._changed.wait()

    async def wait_for_registrations(self, count: int, timeout_s: float = 30) -> HostRegistration:
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: len(self.registrations) >= count)
        return self.registrations[count - 1]

    def phases(self, engine_id: str = "e1") -> list[EnginePhase]:
        """The phases reported, in order, without repetitions."""
        phases: list[EnginePhase] = []
        for report in self.reports:
            if report and report.engine_id == engine_id and report.phase not in phases[-1:]:
                phases.append(report.phase)
        return phases

    async def _register(self, registration: HostRegistration) -> HostAdmission:
        async with self._changed:
            self.registrations.append(registration)
            self.known = True
            self._changed.notify_all()
        return HostAdmission(known=True)

    async def _assignment(self, host_id: str, after: int, prefetch: str | None = None) -> Response:
        if not self.known:
            return Response(status_code=404)
        async with self._changed:
            await self._changed.wait_for(lambda: self.assignment.version != after or self.away)
            return Response(self.assignment.model_dump_json(), media_type="application/json")

    async def _report(self, host_id: str, report: HostReport) -> HostAdmission:
        async with self._changed:
            if self.known:
                self.reports.append(report.engine)
            self._changed.notify_all()
        return HostAdmission(known=self.known)


class _Away(httpx.AsyncBaseTransport):
    """Reaches the controller's app in process, except while it is away."""

    def __init__(self, controller: FakeController) -> None:
        self._controller = controller
        self._inner = httpx.ASGITransport(controller.app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer internal"
        if self._controller.away:
            raise httpx.ConnectError("away")
        return await self._inner.handle_async_request(request)


class FakeWeights:
    """Takes every `file://` source as it is; remembers what is to be fetched beforehand.

    Args:
        failure: What `have` raises.
        waited: Whether `have` says that something was fetched.
    """

    def __init__(self, failure: PenstockError | None = None, *, waited: bool = False) -> None:
        self._failure = failure
        self._waited = waited
        self.wanted: tuple[Manifest, ...] = ()
        self.told = asyncio.Event()
        self.closed = False

    async def have(self, manifest: Manifest) -> Have:
        if self._failure is not None:
            raise self._failure
        return Have(Path(manifest.source.removeprefix("file://")), waited=self._waited)

    async def have_adapter(self, manifest: Manifest, adapter: AdapterSpec) -> Have:
        return Have(Path(adapter.source.removeprefix("file://")))

    def want(self, manifests: tuple[Manifest, ...]) -> None:
        self.wanted = manifests
        self.told.set()

    def fetches(self) -> tuple[FetchReport, ...]:
        return ()

    async def close(self) -> None:
        self.closed = True
