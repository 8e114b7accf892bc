"""What the sizing planner answers: a plan, and its parts; plain data."""

from pydantic import BaseModel, ConfigDict

from models.errors import BadRequestError
from models.hardware import CapacityClass
from models.precision import Precision


class DoesNotFitError(BadRequestError):
    """A model that the asked hardware cannot hold."""

    code = "does_not_fit"


class Answer(BaseModel):
    """Base of a plan's parts."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Memory(Answer):
    """Where the memory of one device goes, in GiB."""

    total_gib: float
    usable_gib: float
    """What the engine may take of it."""
    weights_gib: float
    reserve_gib: float
    """Activations, logits, graphs, libraries."""
    cache_gib: float
    """What is left for keys and values."""


class Rate(Answer):
    """A predicted rate and its error bar, in tokens/s."""

    expected: float
    low: float
    high: float


class Rates(Answer):
    """The rates of one engine."""

    decode: Rate | None
    """Of one sequence; none for an encoder."""
    prefill: Rate
    throughput: Rate | None
    roofline: float | None
    """Answer tokens/s at best."""
    profile: str | None = None
    """The measured profile that they are from."""


class Price(Answer):
    """Price of a million answer tokens while `concurrency` run, in US dollars; prompts included."""

    capacity_class: CapacityClass
    gpu_hour_usd: float
    expected_usd: float
    low_usd: float
    high_usd: float


class StartUp(Answer):
    """Seconds from an engine's start to its first token, by where the weights are read from."""

    storage: str
    read_s: float
    start_s: float


class Plan(Answer):
    """What a model needs of a kind of hardware, and what it gives."""

    model: str
    family: str
    hardware: str
    weights: Precision
    cache: Precision
    parameters_b: float
    """All parameters in 10^9."""
    active_b: float
    """Parameters that one token is multiplied with, in 10^9."""
    weights_gib: float
    """All weights."""
    cache_bytes_a_token: float
    """Further cache of one sequence for each further token, without copies."""
    cache_gib_a_sequence: float
    """Cache of one sequence of `context` tokens on all devices, copies counted."""
    context: int
    prompt_tokens: int
    answer_tokens: int
    concurrency: int
    """Sequences at once that were asked for."""
    tensor_parallel: int
    pipeline_parallel: int
    devices: int
    """Devices of one engine."""
    memory: Memory
    max_concurrency: int
    """Sequences of `context` tokens that one engine holds at once."""
    engines: int
    """Engines that hold what was asked for."""
    decode: Rate | None
    """Tokens/s of one sequence at `concurrency` (none for an encoder)."""
    prefill: Rate
    """Prompt tokens/s of one engine that does nothing else."""
    throughput: Rate | None
    """Answer tokens/s of one engine at `concurrency`, prompts taken in beside."""
    roofline_tokens_s: float | None
    """The same if all of the roofline were reached."""
    measured: bool
    """Whether a published point of this hardware is among those behind the error bar."""
    profile: str | None = None
    """The measured profile that the rates are from, instead of formulas."""
    prices: list[Price]
    start_up: list[StartUp]
