"""What gateway, controller and hosts say to each other: the messages of `/internal/v1`.

Every message ignores fields it does not know, so that two neighbouring versions can talk.
Times are Unix seconds unless a name says otherwise; a duration ends in `_s`.

    gateway ⇄ controller   GET  routes?after=V         long poll -> RoutesDelta
                           GET  identities?after=V     long poll -> IdentitiesDelta
                           POST demand                 DemandReport -> DemandReply
    host ⇄ controller      POST hosts/register         HostRegistration -> HostAdmission
                           GET  hosts/{id}/assignment?after=V&prefetch=ID   long poll -> Assignment
                           POST hosts/{id}/report      HostReport -> HostAdmission

A long poll answers at once if the caller's version is not the current one, else when something
changes or after POLL_S with an unchanged version. Versions only grow, over restarts too.
"""

import math
from enum import StrEnum
from typing import Annotated

from pydantic import Field, PlainSerializer

from models.manifest import AdapterSpec, Manifest
from models.tasks import Task
from serving.identities import IdentitiesDelta as IdentitiesDelta
from serving.identities import KeyRecord as KeyRecord
from serving.identities import Role as Role
from serving.messages import Message as Message

POLL_S = 20.0
"""A long poll is answered after this time even if nothing changed."""

DEMAND_INTERVAL_S = 0.25
"""Gateways report demand this often, and at once for a model with no ready endpoint."""

REPORT_INTERVAL_S = 1.0
"""Hosts report this often, and at once when their engine changes."""


class ModelState(StrEnum):
    """What a tenant or operator can expect of a model."""

    ASLEEP = "asleep"  # no engine; the next request wakes it
    WAKING = "waking"  # an engine starts, none is ready
    READY = "ready"  # as many engines as wanted
    DEGRADED = "degraded"  # some engines, fewer than wanted
    FAILED = "failed"  # engines do not start; an operator has to look


class EnginePhase(StrEnum):
    """Where an engine is between its birth and its end."""

    STARTING = "starting"
    READY = "ready"
    SLEEPING = "sleeping"  # it keeps its host and serves nothing; also on its way there and back
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class StartPhase(StrEnum):
    """Phases of a cold start, in order; each is marked when it is reached."""

    DEMAND_SEEN = "demand_seen"
    DECIDED = "decided"
    NODE_STARTED = "node_started"  # only where Ray had to add a machine for that
    HOST_STARTED = "host_started"  # only where the pool had to grow
    BOUND = "bound"
    FETCHED = "fetched"  # only where the weights were not on the node
    FORKED = "forked"
    WEIGHTS = "weights"
    ENGINE_READY = "engine_ready"
    PROBED = "probed"
    ROUTED = "routed"
    FIRST_TOKEN = "first_token"  # noqa: S105, no password


class PhaseMark(Message):
    """One phase of a cold start was reached."""

    phase: StartPhase
    at: float


# --- gateway <- controller: routes ------------------------------------------------------------


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


# --- gateway -> controller: demand ------------------------------------------------------------


class FirstToken(Message):
    """The request that a start is named after has the first byte of its answer."""

    start_id: str
    engine_id: str
    at: float
    after_s: float = Field(ge=0)
    """Since the request came, by the gateway's monotonic clock: what the tenant waited."""


BUCKET_BASE_S = 1e-4
BUCKET_GROWTH = 1.05


def bucket_of(seconds: float) -> int:
    """The bucket of a time: they grow by a twentieth each, from a tenth of a millisecond."""
    if seconds <= BUCKET_BASE_S:
        return 0
    return math.ceil(math.log(seconds / BUCKET_BASE_S) / math.log(BUCKET_GROWTH))


def bucket_end_s(bucket: int) -> float:
    """The longest time of a bucket."""
    return BUCKET_BASE_S * BUCKET_GROWTH**bucket


class RevisionCounts(Message):
    """How attempts ended at one revision since the last report; told during a canary only."""

    revision: int
    answered: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    """The engine broke off, or said that it failed."""
    ttft: dict[int, int] = Field(default_factory=dict)
    """Streamed answers by bucket of the time from sending to the first byte."""
    tpot: dict[int, int] = Field(default_factory=dict)
    """Streamed answers by bucket of the mean time of each token after the first."""


class ModelDemand(Message):
    """What one gateway holds for one model."""

    model: str
    queued: int = Field(ge=0)
    queued_tokens: int = Field(default=0, ge=0)
    """Of those that wait: prompt and expected output, as the gateway estimates them."""
    oldest_wait_s: float = Field(default=0.0, ge=0)
    arrivals: int = Field(default=0, ge=0)
    """Requests that arrived since the last report."""
    arrived_tokens: int = Field(default=0, ge=0)
    """Of these requests: prompt and expected output, as the gateway estimates them."""
    prefill_tokens: int = Field(default=0, ge=0)
    """Prompt tokens of requests that are in engines and have no first byte yet."""
    finished: int = Field(default=0, ge=0)
    """Requests that were answered since the last report."""
    finished_tokens: int = Field(default=0, ge=0)
    """Of these requests: prompt and output, as the engine told, else as estimated."""
    queued_prompt_tokens: int | None = Field(default=None, ge=0)
    """Of `queued_tokens` the prompts alone: the autoscaler weighs them by the prefill rate. None:
    the gateway does not tell."""
    arrived_prompt_tokens: int | None = Field(default=None, ge=0)
    """Of `arrived_tokens` the prompts alone."""
    finished_output_tokens: int | None = Field(default=None, ge=0)
    """Of `finished_tokens` the outputs alone."""
    missed: int = Field(default=0, ge=0)
    """Of these requests those that passed the model's objective for TTFT or mean TPOT."""
    in_flight: dict[str, int] = Field(default_factory=dict)
    """Requests that run, for each engine_id."""
    start_id: str | None = None
    """Id of the oldest waiting request; ties a cold start to the request that caused it."""
    first_tokens: tuple[FirstToken, ...] = ()
    """Of requests that were named in `start_id` before."""
    revisions: tuple[RevisionCounts, ...] = ()
    """Since the last report, of a model with a canary."""


class QuarantinedRequest(Message):
    """A request that two engines died of, and that gateways refuse for a while."""

    model: str
    fingerprint: str
    """Of its body; the gateways know it again by this."""
    request_id: str
    engine_ids: tuple[str, ...] = ()


class DemandReport(Message):
    """All models of one gateway that have demand now or had some since the last report."""

    gateway_id: str
    models: tuple[ModelDemand, ...] = ()
    suspect: tuple[str, ...] = ()
    """engine_ids that hold requests and make no steps: to be killed and rebound."""
    quarantined: tuple[QuarantinedRequest, ...] = ()
    """Since the last report."""


class DemandReply(Message):
    """Slots that this gateway may fill until its next report is answered."""

    leases: dict[str, int]
    """Slots for each engine_id; an engine that is missing keeps its last lease."""
    quarantined: tuple[str, ...] = ()
    """Fingerprints of requests that other gateways lately put into quarantine."""
    killed: tuple[str, ...] = ()
    """engine_ids of engines that somebody killed lately: they died of no request."""


# --- host <-> controller ----------------------------------------------------------------------


def _said(manifest: Manifest) -> dict[str, object]:
    document = manifest.model_dump(mode="json", exclude_defaults=True)
    if document.get("task") == "generate":  # to an engine the same as none; older hosts know none
        del document["task"]
    return document


SaidManifest = Annotated[Manifest, PlainSerializer(_said, when_used="json")]
"""A manifest as it is sent: without what is as by default. Unlike a message it refuses fields that
it does not know, and those of a newer controller are only sent where a model makes use of them."""


class GangPlace(Message):
    """Which part of an engine a host runs, where several hosts run it together."""

    leader: str
    """engine_id of the part of rank 0, which serves; of the others it is part of the name."""
    rank: int = Field(ge=0)
    """Of the host among the gang's hosts; rank 0 serves."""
    size: int = Field(ge=2)
    """Hosts of the gang."""
    address: str
    """At which the part of rank 0 awaits the others."""
    port: int


class EngineAssignment(Message):
    """The engine that a host shall run."""

    engine_id: str
    revision: int
    manifest: SaidManifest
    start_id: str
    """Ties all phases of this start together, and to the request that caused it."""
    sleep_level: int = Field(default=0, ge=0, le=2)
    """vLLM's: 0 is awake; 1 keeps the weights in the host's memory, 2 throws them away."""
    adapters: tuple[AdapterSpec, ...] | None = None
    """What it shall have loaded; it changes while the engine runs. None: what the manifest says."""
    gang: GangPlace | None = None
    """The host's part of it; None: all of it."""


class Assignment(Message):
    """What a host shall do now; no engine means: drain and stop what runs."""

    version: int
    engine: EngineAssignment | None = None
    drain: bool = True
    """Whether the engine before it gets time to end its requests; one that hangs does not."""
    prefetch: tuple[SaidManifest, ...] | None = None
    """Models that the host may have to start later, whose weights it fetches beforehand; None for
    those that it knows already: the list may be long, and a cold start waits for its assignment."""
    prefetch_id: str = ""
    """Names the list; the host tells with its next poll which one it has."""


class EngineLoadReport(Message):
    """What an engine runs, and sums over its steps since its start, by its own account.

    A step takes `prompt_tokens / prefill_tps + step_s + step_per_seq_s * sequences`: the sums are
    what a least-squares line needs. Steps are timed only while the engine has work before them.
    """

    running: int = Field(default=0, ge=0)
    waiting: int = Field(default=0, ge=0)
    kv_use: float = Field(default=0.0, ge=0)
    """Share of the KV cache in use, 0 to 1."""
    kv_tokens: int = Field(default=0, ge=0)
    """Tokens that the KV cache holds; 0 where it cannot tell."""
    decode_steps: int = Field(default=0, ge=0)
    """Steps without a prompt."""
    decode_seqs: float = Field(default=0.0, ge=0)
    """Sum over these steps of the sequences in each."""
    decode_seqs_squared: float = Field(default=0.0, ge=0)
    decode_s: float = Field(default=0.0, ge=0)
    """Their seconds."""
    decode_seqs_s: float = Field(default=0.0, ge=0)
    """Sum of sequences times seconds."""
    mixed_steps: int = Field(default=0, ge=0)
    """Steps that ended the prefill of prompts, and those before them that prefilled only."""
    mixed_prompt_tokens: int = Field(default=0, ge=0)
    mixed_seqs: float = Field(default=0.0, ge=0)
    """Sum over these steps of the sequences that decoded beside."""
    mixed_s: float = Field(default=0.0, ge=0)


class AdapterReport(Message):
    """What became of a LoRA adapter in an engine; one that is on its way is not told of."""

    name: str
    source: str = ""
    """What is loaded under this name; empty: nothing is."""
    error: str | None = None
    """Why what is wanted could not be loaded; it is tried again."""
    hint: str | None = None


class EngineReport(Message):
    """What a host sees of its engine."""

    engine_id: str
    model: str
    revision: int
    phase: EnginePhase
    start_id: str | None = None
    """Of its assignment: a controller that adopts it goes on with the same start."""
    url: str | None = None
    token: str | None = Field(default=None, repr=False)
    slots: int = 0
    max_model_len: int | None = None
    pid: int | None = None
    marks: tuple[PhaseMark, ...] = ()
    error: str | None = None
    """Why the engine failed, in one sentence for the operator."""
    hint: str | None = None
    killed: bool = False
    """Somebody killed it from outside: it died of no request."""
    log_path: str | None = None
    load: EngineLoadReport | None = None
    """What it runs now, and how long its steps took; None where it cannot tell."""
    adapters: tuple[AdapterReport, ...] = ()
    gang: GangPlace | None = None
    """Of its assignment: a controller that adopts it puts the gang together again."""


class HostRegistration(Message):
    """A host introduces itself, on its start and whenever the controller does not know it."""

    host_id: str
    pool: str
    node: str
    """Name of the machine."""
    address: str
    """Address of the machine, at which its engines listen."""
    accelerators: tuple[str, ...] = ()
    """Ids of the accelerators that Ray gave this host."""
    pid: int
    engine: EngineReport | None = None
    """What runs already: a controller that restarted adopts it."""
    node_age_s: float | None = Field(default=None, ge=0)
    """For how long the machine has been a node of Ray; None: nobody knows."""


class FetchReport(Message):
    """How far a host is with a model's weights."""

    model: str
    source: str
    done_bytes: int = Field(default=0, ge=0)
    total_bytes: int = Field(default=0, ge=0)
    """0 while the source has not told."""
    done: bool = False
    """All of it is on the node."""
    error: str | None = None
    """Why the last try failed; the next one comes by itself."""


class GpuReport(Message):
    """How one of the host's accelerators stands, as its driver tells."""

    gpu: str
    """Its index on the node."""
    memory_used_bytes: int = Field(ge=0)
    memory_total_bytes: int = Field(ge=0)
    utilisation: float | None = Field(default=None, ge=0, le=1)
    """Share of the last moments in which a kernel ran; None: it does not tell."""
    power_w: float | None = Field(default=None, ge=0)
    """None: it does not tell."""


class HostReport(Message):
    """The host's view, each REPORT_INTERVAL_S and at once on a change."""

    engine: EngineReport | None = None
    fetches: tuple[FetchReport, ...] = ()
    """For the engine that starts, and beforehand."""
    gpus: tuple[GpuReport, ...] = ()
    """Its accelerators; none where no driver tells."""


class HostAdmission(Message):
    """Whether the controller knows the host; one that it does not know registers again."""

    known: bool
