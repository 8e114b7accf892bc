"""A platform's HTTP face on loopback: canned resources of the admin API, and a chat stream."""

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel

from models.errors import (
    ConflictError,
    ModelNotFoundError,
    NotFoundError,
    PenstockError,
    UnauthenticatedError,
    UnavailableError,
)
from models.manifest import Manifest, parse_manifest
from serving.costs import CostReport
from serving.protocol import EnginePhase, ModelState
from serving.rollout import RolloutView
from serving.scaling import CapacityView, DemandView, ScalingChange
from serving.views import (
    Applied,
    DecisionView,
    EngineView,
    EventView,
    FetchView,
    HostView,
    Items,
    ModelView,
    PlatformView,
    PoolView,
    RevisionView,
    StartView,
)

ADMIN_KEY = "pa-of-the-tests"
API_KEY = "pk-of-the-tests"
THEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass
class FakePlatform:
    """What the server answers; a test changes the fields and reads `asked`."""

    url: str = ""
    models: dict[str, ModelView] = field(default_factory=dict)
    engines: list[EngineView] = field(default_factory=list)
    starts: list[StartView] = field(default_factory=list)
    decisions: list[DecisionView] = field(default_factory=list)
    capacity: CapacityView = field(default_factory=lambda: CapacityView(source="unknown"))
    demand: DemandView = field(default_factory=lambda: DemandView(seconds=[]))
    costs: CostReport | None = None
    states: list[ModelState] = field(default_factory=list)
    """States that a model shows from one read to the next; the last one stays."""
    resources: dict[str, BaseModel | str] = field(default_factory=dict)
    """Further answers to a GET, by the path below /admin/v1."""
    rollouts: list[RolloutView] = field(default_factory=list)
    """How far a rollout is from one read to the next; the last one stays."""
    away: int = 0
    """So many reads of a model find no controller."""
    replaced_by: int | None = None
    """Revision that is deployed in place of the one that the caller deployed."""
    events: list[EventView] = field(
        default_factory=lambda: [
            EventView(at=THEN, kind="engine_failed", model="gone", engine_id="e-old", message="out")
        ]
    )
    fetches: list[list[FetchView]] = field(default_factory=list)
    """Fetches that a model shows from one read to the next; the last ones stay."""
    warnings: list[str] = field(default_factory=list)
    failure: PenstockError | None = None
    chunks: list[str] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, list[str]], str]] = field(default_factory=list)

    def deploy(self, name: str, state: ModelState, reason: str = "", minimum: int = 0) -> None:
        manifest = parse_manifest(
            {"name": name, "source": "builtin://guide", "scaling": {"min": minimum}}
        )
        self.models[name] = ModelView(
            name=name,
            state=state,
            reason=reason,
            revision=1,
            source=manifest.source,
            pool="cpu",
            engines_ready=int(state is ModelState.READY),
            engines_wanted=1,
            queued=0,
            in_flight=0,
            created_at=THEN,
            manifest=manifest,
        )

    def start_engine(self, engine_id: str, model: str) -> None:
        self.engines.append(
            EngineView(
                engine_id=engine_id,
                model=model,
                revision=1,
                host_id="cpu-1",
                node="here",
                phase=EnginePhase.READY,
                pid=4711,
                slots=8,
                in_flight=1,
                started_at=THEN,
                start_id="s",
                marks=[],
                error=None,
                hint=None,
            )
        )

    def answer(self, method: str, path: str, body: str) -> BaseModel | str | None:
        """The resource of one call. Raises what is to be answered as an error."""
        if self.failure is not None:
            raise self.failure
        match method, path.removeprefix("/admin/v1").strip("/").split("/"):
            case "GET", ["status"]:
                pool = PoolView(name="cpu", hosts_wanted=2, hosts=2, hosts_free=1)
                return PlatformView(
                    version="9", pools=[pool], gateways=1, models=list(self.models.values())
                )
            case "GET", ["models"]:
                return Items[ModelView](items=list(self.models.values()))
            case "POST", ["models"]:
                manifest = Manifest.model_validate_json(body)
                query = self.asked[-1][2]
                known = self.models.get(manifest.name)
                current = known.revision if known is not None else 0
                if query.get("if_revision", [str(current)]) != [str(current)]:
                    raise ConflictError("somebody else deployed meanwhile", param="if_revision")
                changed = known is None or known.manifest != manifest
                told = Applied(
                    model=manifest.name,
                    revision=current + changed,
                    changed=changed,
                    warnings=self.warnings,
                    manifest=manifest,
                )
                if query.get("dry_run") == ["true"]:
                    return told
                first = self.states.pop(0) if self.states else ModelState.READY
                self.deploy(manifest.name, first, minimum=manifest.scaling.min)
                kept = {"manifest": manifest, "revision": told.revision}
                self.models[manifest.name] = self.models[manifest.name].model_copy(update=kept)
                return told
            case "GET", ["models", name]:
                seen = self._model(name)
                if self.away:
                    self.away -= 1
                    raise UnavailableError("the controller does not answer")
                if self.replaced_by:
                    return seen.model_copy(update={"revision": self.replaced_by})
                if self.states:
                    self.deploy(name, self.states.pop(0), "because", seen.manifest.scaling.min)
                    kept = {"manifest": seen.manifest, "revision": seen.revision}
                    self.models[name] = self.models[name].model_copy(update=kept)
                if self.fetches:
                    fetches = self.fetches.pop(0) if len(self.fetches) > 1 else self.fetches[0]
                    return seen.model_copy(update={"fetches": fetches})
                return seen
            case "DELETE", ["models", name]:
                self._model(name)
                del self.models[name]
                return None
            case "GET", ["models", name, "revisions"]:
                manifest = self._model(name).manifest
                view = RevisionView(model=name, revision=1, created_at=THEN, manifest=manifest)
                return Items[RevisionView](items=[view])
            case "GET", ["models", name, "rollout"]:
                seen = self._model(name)
                if self.rollouts:
                    return self.rollouts.pop(0) if len(self.rollouts) > 1 else self.rollouts[0]
                return RolloutView(
                    model=name, revision=seen.revision, done=seen.state is ModelState.READY,
                    engines_wanted=1, ready=seen.engines_ready, starting=0, old=0, reason="",
                )  # fmt: skip
            case "GET", ["models", name, "starts"]:
                self._model(name)
                return Items[StartView](items=self.starts)
            case "PATCH", ["models", name, "scaling"]:
                seen = self._model(name)
                change = ScalingChange.model_validate_json(body).model_dump(exclude_none=True)
                scaling = seen.manifest.scaling.model_copy(update=change)
                manifest = seen.manifest.model_copy(update={"scaling": scaling})
                self.models[name] = seen.model_copy(update={"manifest": manifest})
                return Applied(model=name, revision=2, changed=True)
            case "PUT" | "DELETE", ["models", name, "adapters", _]:
                self._model(name)
                return Applied(model=name, revision=2, changed=True)
            case "GET", ["costs"]:
                return self.costs
            case "GET", ["models", name, "capacity"]:
                self._model(name)
                return self.capacity
            case "GET", ["models", name, "demand"]:
                self._model(name)
                return self.demand
            case "GET", ["models", name, "decisions"]:
                self._model(name)
                return Items[DecisionView](items=self.decisions)
            case "GET", ["engines"]:
                return Items[EngineView](items=self.engines)
            case "GET", ["engines", engine_id, "log"]:
                return f"log of {engine_id}\n"
            case "GET", ["hosts"]:
                host = HostView(
                    host_id="cpu-1", pool="cpu", node="here", accelerators=[], pid=4711,
                    engine_id=None, model=None, registered_at=THEN, seen_s_ago=0.25,
                )  # fmt: skip
                return Items[HostView](items=[host])
            case "GET", ["events"]:
                return Items[EventView](items=self.events)
        if method == "GET" and (found := self.resources.get(path.removeprefix("/admin/v1"))):
            return found
        raise NotFoundError(f"there is no {path}")

    def _model(self, name: str) -> ModelView:
        if name not in self.models:
            raise ModelNotFoundError(f"the model {name!r} does not exist", param="model")
        return self.models[name]


class _Handler(BaseHTTPRequestHandler):
    server: "FakeServer"

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        platform = self.server.platform
        platform.asked.append((self.command, parts.path, parse_qs(parts.query), body))
        try:
            if parts.path == "/health":
                self._send(200, "application/json", b"{}")
                return
            chat = parts.path.startswith("/v1/")
            if self.headers.get("Authorization") != f"Bearer {API_KEY if chat else ADMIN_KEY}":
                raise UnauthenticatedError("the key is not valid")
            if chat:
                if platform.failure is not None:
                    raise platform.failure
                stream = "".join(f"data: {chunk}\n\n" for chunk in platform.chunks)
                self._send(200, "text/event-stream", stream.encode())
                return
            found = platform.answer(self.command, parts.path, body)
        except PenstockError as exc:
            self._send(exc.status, "application/json", json.dumps(exc.body()).encode())
            return
        if found is None:
            self._send(204, "text/plain", b"")
        elif isinstance(found, str):
            self._send(200, "text/plain", found.encode())
        else:
            self._send(200, "application/json", found.model_dump_json().encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class FakeServer(ThreadingHTTPServer):
    """Serves a FakePlatform on a free port of loopback."""

    block_on_close = True

    def __init__(self, platform: FakePlatform) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.platform = platform
        platform.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def end(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()
