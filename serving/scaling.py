"""What the admin API shows and takes of the autoscaler, shared by the controller and the CLI.

    GET    /admin/v1/models/{name}/decisions?limit=N   Items[DecisionView], newest last
    PATCH  /admin/v1/models/{name}/scaling             ScalingChange -> Applied
    GET    /admin/v1/models/{name}/capacity            CapacityView
    GET    /admin/v1/models/{name}/demand?hours=H      DemandView

`DecisionView` stands in `serving.views`.
"""

from pydantic import BaseModel, ConfigDict, Field


class ScalingChange(BaseModel):
    """New bounds of a model, or a pause of its autoscaler; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    min: int | None = Field(default=None, ge=0, le=1000)
    """Engines that run even when nobody asks."""
    max: int | None = Field(default=None, ge=1, le=1000)
    """Engines that run at most."""
    paused: bool | None = None
    """The autoscaler leaves the number of engines as it is, within the bounds."""


class CapacityView(BaseModel):
    """What one engine of a model's current revision can do, and what its starts take."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    source: str
    """`learned` from the engines' steps, `guessed` by the sizing planner, or `unknown`."""
    slots: int | None = None
    prefill_tps: float | None = None
    """Prompt tokens a second with nothing else to do."""
    step_s: float | None = None
    """A decode step with no sequence, in seconds."""
    step_per_seq_s: float | None = None
    """What each sequence adds to it."""
    chunk_tokens: int | None = None
    """Prompt tokens of one step at most."""
    starts_s: list[float] = []
    """Measured starts, from host to route, oldest first."""


class DemandView(BaseModel):
    """What came in for a model, second by second; seconds with nothing are left out."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    seconds: list[tuple[int, int, int, int, int]]
    """Unix second, requests that arrived, tokens of their prompts, requests that ended, tokens of
    their answers."""
