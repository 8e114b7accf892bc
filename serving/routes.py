"""The routing table, as gateways get it from the controller."""

from enum import StrEnum

from pydantic import Field

from models.tasks import Task
from serving.messages import Message


class ModelState(StrEnum):
    """What a tenant or operator can expect of a model."""

    ASLEEP = "asleep"  # no engine; the next request wakes it
    WAKING = "waking"  # an engine starts, none is ready
    READY = "ready"  # as many engines as wanted
    DEGRADED = "degraded"  # some engines, fewer than wanted
    FAILED = "failed"  # engines do not start; an operator has to look


class EndpointRoute(Message):
    """A ready engine that a gateway may send requests to."""

    engine_id: str
    url: str
    """Base URL without a path, as `http://127.0.0.1:41234`."""
    token: str = Field(repr=False)
    """Bearer token that every route of this engine asks for."""
    revision: int
    slots: int
    """Sequences that the engine runs at once (max_num_seqs)."""
    kv_tokens: int = 0
    """Tokens that its KV cache holds; 0 where nobody knows."""
    external: bool = False
    """A server that others run: it knows OpenAI's fields and no `cache_salt`."""
    model: str | None = None
    """Its name for the model, where it is another."""
    adapters: tuple[str, ...] = ()
    """Names of the LoRA adapters that it has loaded."""


class CanaryRoute(Message):
    """Which requests of a model go to its new revision."""

    revisions: tuple[int, ...]
    """Revisions whose engines are the new one's; all others are the old one's."""
    share: float = Field(ge=0, le=1)
    """Of the requests; never more, and less where the new one's engines have no room."""
    sticky: str = "none"
    """Who stays with one revision: `none`, `tenant` or `session`."""


class AdapterRoute(Message):
    """A LoRA adapter of a model, which tenants call as `model:adapter`."""

    name: str
    failed: bool = False
    """No engine that is ready could load it."""


class ModelRoute(Message):
    """One model as gateways see it."""

    name: str
    state: ModelState
    reason: str = ""
    """Why the model is in this state; safe to show to a tenant."""
    created: int
    """Unix seconds of the first deploy, for `/v1/models`."""
    max_model_len: int | None = None
    keep_alive_s: float | None = None
    """After how long a waiting stream may be told so by SSE comments; None: only who asks."""
    endpoints: tuple[EndpointRoute, ...] = ()
    ttft_s: float | None = None
    """Objective for the time to the first token, from the door; None: the model has none."""
    tpot_s: float | None = None
    """Objective for the mean time of each token after the first; None: the model has none."""
    canary: CanaryRoute | None = None
    """A new revision that gets a share of the requests only."""
    adapters: tuple[AdapterRoute, ...] = ()
    task: Task | None = None
    """What it is for; None: only the engine can tell."""


class RoutesDelta(Message):
    """Changes of the routing table since `after`; all of it where `full`."""

    version: int
    full: bool
    models: tuple[ModelRoute, ...] = ()
    removed: tuple[str, ...] = ()
