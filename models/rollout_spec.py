"""The part of a manifest that says how a new revision takes the place of the old one."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Percent = Annotated[float, Field(gt=0, le=100)]


class GateSpec(BaseModel):
    """How much worse than the old revision the new one may answer, over the same time."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    error_rate: float = Field(default=0.01, ge=0, le=1)
    """Share of failed attempts above the old revision's."""
    ttft_p95: float | None = Field(default=1.5, ge=1, le=100)
    """Factor on the old revision's 95th percentile of TTFT in the engine; null: not looked at."""
    tpot_p95: float | None = Field(default=1.5, ge=1, le=100)
    """Factor on the old revision's 95th percentile of TPOT; null: not looked at."""


class CanarySpec(BaseModel):
    """A new revision that gets a growing share of the traffic."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    steps: tuple[Percent, ...] = Field(default=(5, 25, 50, 100), min_length=1, max_length=20)
    """Percent of the requests that go to the new revision, step by step; the last is 100."""
    step_s: float = Field(default=300.0, ge=0, le=604_800)
    """Seconds that a step lasts at least."""
    min_requests: int = Field(default=20, ge=1, le=1_000_000)
    """Answers of each revision within a step before it is judged."""
    sticky: Literal["none", "tenant", "session"] = "none"
    """Who stays with one revision: nobody, an organisation, or a session of it."""
    gate: GateSpec = GateSpec()
    """What the new revision has to keep to; else the old one is brought back."""

    @model_validator(mode="after")
    def _grows_to_everything(self) -> Self:
        if list(self.steps) != sorted(set(self.steps)) or self.steps[-1] != 100:
            raise ValueError("steps must grow, and end with 100")
        return self


class RolloutSpec(BaseModel):
    """How a new revision takes the place of the old one; new before old wherever a host is free."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    no_room: Literal["replace", "wait"] = "replace"
    """Where no host is free for both: one old engine goes first, or the new one waits."""
    canary: CanarySpec | None = None
    """Try the new revision on a share of the traffic first."""
