"""What gateways tell the controller of their demand, and what it answers.

Times are Unix seconds unless a name says otherwise; a duration ends in `_s`.
"""

import math

from pydantic import Field

from serving.messages import Message


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
