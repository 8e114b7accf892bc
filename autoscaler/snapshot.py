"""What the policy sees of a model at one moment, and what it answers."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One model at one moment; `None` means that nobody could tell, and holds the target."""

    at_s: float  # monotonic seconds
    ready: int  # engines that take requests
    starting: int  # engines on their way
    queued: int | None  # requests waiting at all gateways
    in_flight: int | None  # requests running in all engines
    arrivals: int = 0  # requests that came since the last decision, those already answered too


@dataclass(frozen=True, slots=True)
class Spec:
    """The bounds that the manifest sets."""

    min: int
    max: int
    idle_timeout_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What the policy carries from one decision to the next."""

    target: int
    busy_at_s: float  # when the model last had a request


class Reason(StrEnum):
    """Why a decision is what it is."""

    DEMAND = "demand"  # requests wait or run
    IDLE = "idle"  # nobody has asked for idle_timeout_s
    LINGER = "linger"  # nobody asks, but the idle time is not over
    SIGNAL_MISSING = "signal_missing"  # no report: hold


@dataclass(frozen=True, slots=True)
class Decision:
    """How many engines the model shall have, and why."""

    target: int
    reason: Reason
    idle_s: float  # seconds since the model last had a request
