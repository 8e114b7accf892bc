"""The part of a manifest that says how many engines a model has, and when."""

from typing import Literal, Self

from pydantic import Field, model_validator

from models.schedule import ScheduleSpec, bounds_at
from models.strict import Strict


class SloSpec(Strict):
    """What a tenant may expect of each request; the autoscaler buys no more engines than that."""

    ttft_s: float = Field(default=2.0, gt=0, le=3600)
    """Time to the first token in seconds, from the gateway's door: queue and cold start count."""
    tpot_s: float = Field(default=0.1, gt=0, le=60)
    """Mean time of each further token in seconds."""
    attainment: float = Field(default=0.99, gt=0, lt=1)
    """Share of the requests for which both shall hold."""


class ScalingSpec(Strict):
    """How many engines the model has, and when."""

    min: int = Field(default=0, ge=0, le=1000)
    """Engines that run even when nobody asks."""
    max: int = Field(default=1, ge=1, le=1000)
    """Engines that run at most."""
    idle_timeout_s: float = Field(default=300.0, ge=0.5, le=604_800)
    """Seconds without a request after which the model goes down to `min`."""
    idle: Literal["stop", "sleep-host", "sleep-discard"] = "stop"
    """What becomes of an engine that is not needed: it is stopped, or sleeps on its GPUs with its
    weights in the host's memory or thrown away, until another model needs the host. A sleeper wakes
    in a second or a few, and its GPUs are not free. On GPUs only."""
    slo: SloSpec = SloSpec()
    """What a tenant may expect of each request."""
    keep_alive_s: float | None = Field(default=None, ge=0.5, le=3600)
    """After how many seconds a streaming client that waits for an engine is told so by SSE comments
    (then its status is 200, and a failure an SSE error); by default only clients who ask for it by
    the header `x-penstock-keep-alive-s`."""
    headroom: float = Field(default=0.1, ge=0, le=0.9)
    """Share of each engine that steady load leaves free."""
    priority: int = Field(default=0, ge=-1000, le=1000)
    """Who gets a host first where models compete for a pool: the higher one. `min` of others is
    never taken."""
    schedule: tuple[ScheduleSpec, ...] = Field(default=(), max_length=50)
    """Bounds that hold at certain hours, or when a cron expression says so; of windows that
    overlap, the last one listed counts."""
    paused: bool = False
    """The autoscaler leaves the number of engines as it is, within the bounds."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must not be above max ({self.max})")
        return self

    def bounds_at(self, at: float) -> tuple[int, int]:
        """`min` and `max` as the schedule has them at a moment, in Unix seconds."""
        return bounds_at(self.schedule, self.min, self.max, at)

    @property
    def most(self) -> int:
        """The largest number of engines that any hour allows."""
        return max(self.max, *(w.max or w.min or 0 for w in self.schedule), 0)
