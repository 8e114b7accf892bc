"""What is earned and spent: resources of the admin API, shared by the controller and the CLI.

    GET /admin/v1/costs?hours=24       CostReport
    GET /v1/organization/costs         OpenAI's page of buckets

Amounts are dollars, exactly, as text.
"""

from datetime import datetime

from serving.views import View


class ModelCost(View):
    """One model."""

    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    revenue: str
    accelerator_hours: str
    """Of its engines, from their binding to their end."""
    busy_share: float | None
    """Of this time, when at least one request ran; None where it had no engine."""
    gpu_cost: str
    cost_per_million_tokens: str | None
    """GPU cost for a million prompt and completion tokens; None where there were none."""


class Trial(View):
    """What to replay in the simulator, to see what a recommendation would have changed."""

    engine_hour: str
    """Dollars for an hour of one engine as it is, from what its accelerators cost."""
    engine_hour_then: str
    min: int | None = None
    """Of the manifest's `scaling`, as `idle_timeout_s`; None: as it is."""
    idle_timeout_s: float | None = None
    slots: int | None = None
    prefill_factor: float = 1.0
    """The other engine's prompt tokens a second, over the present one's."""
    step_factor: float = 1.0
    """Its seconds of a decode step, over the present one's."""
    reclaimed: float = 0.0
    """Share of the hosts that may be taken away at any time."""


class Recommendation(View):
    """What would cost less, and how that was reckoned."""

    kind: str
    """`lower_min`, `shorter_idle`, `accelerator`, `spot` or `free_hosts`."""
    model: str | None
    saves_per_day: str
    arithmetic: str
    trial: Trial | None = None
    """None where a replay says nothing: of hosts without an engine."""


class CostReport(View):
    """Revenue and cost of a stretch of time."""

    since: datetime
    until: datetime
    models: list[ModelCost]
    free_hours: str
    """Accelerator-hours of hosts without an engine."""
    free_cost: str
    revenue: str
    gpu_cost: str
    """Of all hosts, the free ones too."""
    idle_share: float | None
    """Of all accelerator-hours, those in which no request ran."""
    unpriced: list[str]
    """What was used and has no price: models, and accelerators with their capacity class."""
    recommendations: list[Recommendation]
