"""What hosts and the controller say to each other: of engines, weights and accelerators.

Times are Unix seconds unless a name says otherwise; a duration ends in `_s`.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, PlainSerializer

from models.manifest import AdapterSpec, Manifest
from serving.messages import Message


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
