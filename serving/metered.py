"""What gateways and hosts tell the controller about tokens: the messages of metering.

    gateway -> controller   POST /internal/v1/usage      UsageBatch   -> UsageReceipt
    host    -> controller   POST /internal/v1/attempts   AttemptBatch -> AttemptReceipt

*Attempts* are what engines did; *usage* is what is billed, one row for each usage_id. Both
messages may be sent again after a failure: what is known already changes nothing.
`docs/concepts/metering.md` states the rule that makes the one from the other.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from serving.protocol import Message

MAX_COUNT = 2**31 - 1
MAX_NAME = 64


def _short(value: object) -> object:
    return value[:MAX_NAME] if isinstance(value, str) else value


Short = Annotated[str, BeforeValidator(_short)]
"""A name as long as its column; the rest is cut off, for a row must not fail by its names."""


class UsageStatus(StrEnum):
    """How a request ended, as far as its bill is concerned."""

    COMPLETE = "complete"  # the tenant was sent the whole answer
    CUT = "cut"  # an engine broke off, or the gateway was stopped, after the first byte
    CANCELLED = "cancelled"  # the tenant left
    FAILED = "failed"  # an error in place of an answer
    UNKNOWN = "unknown"  # its gateway died when bytes may have left: nobody can know which


class Outcome(StrEnum):
    """How an attempt ended at its engine."""

    ENDED = "ended"  # the engine's server was done with it: answered, refused or aborted
    DIED = "died"  # the engine died with it


class UsageRow(Message):
    """One request as its gateway settled it."""

    usage_id: str = Field(min_length=1, max_length=64)
    org_id: Short = ""
    project_id: Short = ""
    key_id: Short = ""
    model: Short = ""
    revision: int = 0
    route: Short = ""
    tier: str = Field(default="", max_length=16)
    """OpenAI's service tier."""
    status: UsageStatus
    http_status: int = 0
    """As the tenant saw it; 0 where it saw none."""
    at: float
    """Unix seconds of its arrival, by the gateway's clock."""
    ttft_s: float | None = None
    duration_s: float = 0.0
    """0 where the gateway died."""
    attempts: int = Field(default=0, ge=0, le=MAX_COUNT)
    engine_id: Short = ""
    """The last engine that had it."""
    prompt: int = Field(default=0, ge=0, le=MAX_COUNT)
    cached: int = Field(default=0, ge=0, le=MAX_COUNT)
    completion: int = Field(default=0, ge=0, le=MAX_COUNT)
    reasoning: int = Field(default=0, ge=0, le=MAX_COUNT)
    delivered: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Parts of a stream that went out, each of at least one token."""
    known: bool = True
    """False where the engine's recorder has to tell the tokens."""
    estimated: bool = False
    """The tokens were guessed: a server that others run told none, and nobody else can."""


class UsageBatch(Message):
    """Rows of one gateway."""

    gateway_id: str
    rows: tuple[UsageRow, ...] = ()


class UsageReceipt(Message):
    """All rows of the batch are stored."""

    new: int
    """How many of them were not known before."""


class AttemptRow(Message):
    """One attempt as the engine's recorder has it."""

    attempt_id: str = Field(min_length=1, max_length=64)
    outcome: Outcome
    started_at: float
    ended_at: float
    """Of an attempt whose engine died: when it was last seen."""
    prompt: int = Field(default=0, ge=0, le=MAX_COUNT)
    cached: int = Field(default=0, ge=0, le=MAX_COUNT)
    completion: int = Field(default=0, ge=0, le=MAX_COUNT)
    reasoning: int = Field(default=0, ge=0, le=MAX_COUNT)
    share_s: float | None = Field(default=None, ge=0)
    """Its share of the engine's time: of each second an equal part for each attempt that was open.
    The shares of all attempts are the seconds in which the engine had one."""

    @property
    def usage_id(self) -> str:
        """The request that the attempt was made for."""
        return self.attempt_id.rpartition("-")[0]


class EngineTotals(Message):
    """Sums over one engine's life; the engine's own counters are vLLM's."""

    attempts: int = 0
    prompt: int = 0
    completion: int = 0
    other_prompt: int = 0
    """Of requests that were no attempts, as the probe of a host."""
    other_completion: int = 0
    lost: int = 0
    """Attempts for which the recorder had no room."""
    engine_prompt: int = 0
    engine_completion: int = 0


class AttemptBatch(Message):
    """What a host read in the recorder of one engine."""

    engine_id: str = Field(min_length=1, max_length=64)
    rows: tuple[AttemptRow, ...] = ()
    totals: EngineTotals = EngineTotals()
    final: bool = False
    """The engine is gone, and this is all that is left of it."""


class AttemptReceipt(Message):
    """All attempts of the batch are stored."""

    new: int
