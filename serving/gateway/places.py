"""One request's place in a model's lane, and what bounds a lane."""

import asyncio
from dataclasses import dataclass, field

from models.errors import ModelNotFoundError, UnavailableError
from serving.gateway.endpoint import PREFILL_TOKENS, Endpoint
from serving.gateway.tickets import Ticket
from serving.gateway.visits import Visit


class AdapterAwayError(UnavailableError):
    """A request that waits in the line wants an adapter that no engine has at the moment."""

    def __init__(self) -> None:
        super().__init__("no engine has the adapter at the moment")


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """What the settings bound in a lane."""

    max_queued: int = 1000
    max_queued_tokens: int = 4_000_000
    prefill_tokens: int = PREFILL_TOKENS


@dataclass(slots=True, eq=False)
class Place(Ticket):
    """A ticket, the slot it waits for, and the request that it is for."""

    granted: asyncio.Future[Endpoint] | None = field(default=None)
    visit: Visit | None = None
    streams: bool = True
    prompt_bytes: int = 0
    answers: int = 1
    sent_s: float = 0.0  # monotonic; of the present attempt
    left: bool = False  # its tenant went away


def not_found(model: str) -> ModelNotFoundError:
    """The error for a model that is not deployed."""
    shown = model if len(model) <= 200 else model[:200] + "..."
    return ModelNotFoundError(f"the model {shown!r} does not exist", param="model")
