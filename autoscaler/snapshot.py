"""What the policy sees of a model at one moment, and what it answers."""

from dataclasses import dataclass, replace
from enum import StrEnum

from autoscaler.capacity import Capacity


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What one engine runs, by its own account."""

    running: int
    waiting: int
    kv_use: float = 0.0  # share of the KV cache in use, 0 to 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One model at one moment; `None` means that nobody could tell.

    Without `queued` or `in_flight` the target holds. Without `capacity` the policy falls back to
    a fixed number of engines while somebody asks. Counts "since the last decision" are sums over
    all gateways, so that the order of their reports means nothing.
    """

    at_s: float  # monotonic seconds
    ready: int  # engines that take requests
    starting: int  # engines on their way
    queued: int | None  # requests waiting at all gateways
    in_flight: int | None  # requests running in all engines
    arrivals: int = 0  # requests that came since the last decision, those already answered too
    arrived_tokens: int | None = None  # their prompt tokens
    queued_tokens: int | None = None  # prompt tokens waiting at all gateways
    prefill_tokens: int = 0  # prompt tokens in engines whose request has no first token yet
    oldest_wait_s: float = 0.0  # age of the oldest request that waits at a gateway
    finished: int = 0  # requests that ended since the last decision
    finished_tokens: int = 0  # their completion tokens
    missed: int = 0  # requests that missed the SLO, noticed since the last decision
    draining: int = 0  # engines that take nothing more and are not gone yet
    available: int | None = None  # further engines that hosts could take now
    cold_start_s: float | None = None  # what a start will take, a high quantile of those measured
    capacity: Capacity | None = None  # one engine of this revision
    engines: tuple[EngineLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """The bounds and promises that the manifest sets."""

    min: int
    max: int
    idle_timeout_s: float
    ttft_s: float = 2.0  # time to the first token, from the gateway's door
    tpot_s: float = 0.1  # time for each further token
    attainment: float = 0.99  # share of requests for which both shall hold
    headroom: float = 0.1  # share of each engine that steady load leaves free


@dataclass(frozen=True, slots=True)
class Memory:
    """What the policy carries from one decision to the next; the same for one model only."""

    target: int
    busy_at_s: float  # when the model last had a request
    at_s: float | None = None  # the last decision
    prefill: tuple[float, ...] = ()  # engine seconds of prefill that arrived, fading; see TAUS_S
    arrived: float = 0.0  # requests that arrived, fading
    finished: float = 0.0  # requests that ended, fading
    finished_tokens: float = 0.0  # their completion tokens, fading alike
    peaks: tuple[tuple[float, int], ...] = ()  # (at_s, needed), falling: the maxima since then
    stretch: float = 0.0  # logarithm of the window's length over its first length
    judged: float = 0.0  # requests that the window's length was learned from, fading
    refused_at_s: float | None = None  # since when capacity is short, or was last asked for
    backoff_s: float = 0.0  # how long until it is asked for again

    def shifted(self, by_s: float) -> "Memory":
        """The same on a clock that shows `by_s` more."""
        return replace(
            self,
            busy_at_s=self.busy_at_s + by_s,
            at_s=None if self.at_s is None else self.at_s + by_s,
            peaks=tuple((at_s + by_s, needed) for at_s, needed in self.peaks),
            refused_at_s=None if self.refused_at_s is None else self.refused_at_s + by_s,
        )


class Reason(StrEnum):
    """Why a decision is what it is."""

    DEMAND = "demand"  # requests wait or run
    ARRIVALS = "arrivals"  # the work that arrives needs so many engines
    BACKLOG = "backlog"  # what waits has to be through before its first token is late
    SLOTS = "slots"  # the sequences in flight need the slots
    HOLD = "hold"  # fewer would do now, but more were needed within the window
    IDLE = "idle"  # nobody has asked for the idle time
    LINGER = "linger"  # nobody asks, but the idle time is not over
    SIGNAL_MISSING = "signal_missing"  # no report: hold
    NO_CAPACITY = "no_capacity"  # more are needed than hosts can take; asked again later
    PAUSED = "paused"  # an operator has paused the autoscaler


@dataclass(frozen=True, slots=True)
class Decision:
    """How many engines the model shall have, and why."""

    target: int
    reason: Reason
    idle_s: float  # seconds since the model last had a request
    needed: int = 0  # engines for the present load alone, unbounded
    by_arrivals: float = 0.0  # engines that the arriving work keeps busy
    by_backlog: float = 0.0  # engines that bring what waits through in time
    by_slots: float = 0.0  # engines whose slots the requests fill
    window_s: float = 0.0  # how long a peak holds
    idle_limit_s: float = 0.0  # idle time after which the model sleeps
