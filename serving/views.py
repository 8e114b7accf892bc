"""What the admin API shows: the resources of `/admin/v1`, shared by the controller and the CLI.

    GET    /admin/v1/status                    PlatformView
    GET    /admin/v1/models                    Items[ModelView]
    POST   /admin/v1/models                    Manifest -> Applied (201 new, 200 otherwise);
        ?if_revision=N  409 where N is not the current one (0: none), ?dry_run=true  changes nothing
    GET    /admin/v1/models/{name}             ModelView
    DELETE /admin/v1/models/{name}             204
    GET    /admin/v1/models/{name}/revisions   Items[RevisionView]
    GET    /admin/v1/models/{name}/starts      Items[StartView], newest last
    GET    /admin/v1/models/{name}/decisions   Items[DecisionView], newest last
    GET    /admin/v1/engines                   Items[EngineView]
    GET    /admin/v1/engines/{id}/log?tail=N   text/plain
    GET    /admin/v1/hosts                     Items[HostView]
    GET    /admin/v1/events?limit=N&model=M    Items[EventView], newest last

Times are RFC 3339 in UTC.
"""

from datetime import datetime
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from models.manifest import Manifest
from serving.protocol import EnginePhase, ModelState, StartPhase

ViewT = TypeVar("ViewT", bound=BaseModel)


class View(BaseModel):
    """Base of all resources."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Items(View, Generic[ViewT]):
    """A list of resources."""

    items: list[ViewT]


class FetchView(View):
    """How far one node is with a model's weights."""

    node: str
    done_bytes: int
    total_bytes: int
    """0 while the source has not told."""
    done: bool
    error: str | None
    """Why the last try failed; the next one comes by itself."""


class ModelView(View):
    """A deployed model and how it is."""

    name: str
    state: ModelState
    reason: str
    """Why it is in this state; empty where nothing needs to be said."""
    revision: int
    source: str
    pool: str
    engines_ready: int
    engines_wanted: int
    scaling_reason: str = ""
    """Why so many are wanted: the autoscaler's reason, as `backlog` or `hold`."""
    queued: int
    in_flight: int
    created_at: datetime
    manifest: Manifest
    fetches: list[FetchView] = []
    """Of weights that are fetched beforehand, or for an engine that starts."""


class RevisionView(View):
    """One immutable manifest of a model."""

    model: str
    revision: int
    created_at: datetime
    manifest: Manifest
    author: str = ""
    """Name of the key that deployed it."""


class Applied(View):
    """What a deploy did."""

    model: str
    revision: int
    changed: bool
    """False where the same manifest was the current revision already."""
    warnings: list[str] = []
    """What is accepted, and will not be as its author may hope."""
    manifest: Manifest | None = None
    """As it is kept: its source is pinned to what was there at the deploy."""


class MarkView(View):
    """A phase of the engine's start, in seconds since the demand that caused it."""

    phase: StartPhase
    at_s: float


class DecisionView(View):
    """A change of how many engines a model shall have, and why."""

    at: datetime
    before: int
    target: int
    reason: str
    """The policy's reason, as `demand` or `idle`."""
    queued: int | None
    """Requests that waited at all gateways; null where nobody could tell."""
    in_flight: int | None
    ready: int
    starting: int
    idle_s: float
    """Seconds since the model last had a request."""
    needed: int = 0
    """Engines for the load of that moment alone."""
    by_arrivals: float = 0.0
    """Engines that the arriving work keeps busy."""
    by_backlog: float = 0.0
    """Engines that bring what waits through in time."""
    by_slots: float = 0.0
    """Engines whose slots or KV caches the requests fill."""
    window_s: float = 0.0
    """How long a peak holds."""
    idle_limit_s: float = 0.0
    """Idle time after which the model sleeps."""
    queued_tokens: int | None = None
    """Of the prompts that waited."""
    oldest_wait_s: float = 0.0
    draining: int = 0
    available: int | None = None
    """Further engines that hosts could take."""
    cold_start_s: float | None = None
    """What a start takes, a high quantile."""
    prefill_tps: float | None = None
    """Prompt tokens a second of one engine; null where its capacity was not known."""


class EngineView(View):
    """A vLLM engine on a host."""

    engine_id: str
    model: str
    revision: int
    host_id: str
    node: str
    phase: EnginePhase
    pid: int | None
    slots: int
    in_flight: int
    started_at: datetime
    start_id: str
    marks: list[MarkView]
    error: str | None
    hint: str | None


class StartView(View):
    """One start of an engine, from the request that caused it to its first token or its failure."""

    start_id: str
    model: str
    revision: int
    engine_id: str
    host_id: str
    node: str
    began_at: datetime
    marks: list[MarkView]
    """In order; the time between two of them is the later one's phase."""
    waited_s: float | None
    """From request to first token by the gateway's own clock; None where no request caused the
    start, or the one that did left before its first token."""
    failed_at_s: float | None = None
    """When it failed; None of a start that did not."""
    error: str | None = None
    hint: str | None = None


class HostView(View):
    """A Ray Serve replica that holds accelerators and wraps at most one engine."""

    host_id: str
    pool: str
    node: str
    accelerators: list[str]
    pid: int
    engine_id: str | None
    model: str | None
    registered_at: datetime
    seen_s_ago: float


class EventView(View):
    """Something that happened, worth a line to an operator."""

    at: datetime
    kind: str
    """`deployed`, `deploy_refused`, `deleted`, `woken`, `ready`, `slept`, `dozed`, `engine_failed`,
    `engine_lost`, `host_joined`, `host_lost`, `model_failed`, `pool_scaled`,
    `request_quarantined`, ..."""
    model: str | None
    engine_id: str | None
    message: str


class PoolView(View):
    """A pool of hosts of one hardware shape."""

    name: str
    hosts_wanted: int
    hosts: int
    hosts_free: int


class PlatformView(View):
    """The platform at a glance."""

    version: str
    pools: list[PoolView]
    gateways: int
    models: list[ModelView]
