"""What the admin API shows of usage, shared by the controller and the CLI.

    GET /admin/v1/usage?by=model&since=T&until=T    Items[UsageView]
    GET /admin/v1/usage/export?format=csv|jsonl     text/csv or application/jsonl
    GET /admin/v1/usage/reconcile?since=T           ReconcileView
    GET /v1/organization/usage/completions          OpenAI's page of buckets

Times in queries are Unix seconds; in views RFC 3339 in UTC.
"""

from datetime import datetime
from enum import StrEnum

from serving.views import View


class GroupBy(StrEnum):
    """By what usage is summed up."""

    ORG = "org"
    PROJECT = "project"
    KEY = "key"
    MODEL = "model"
    TIER = "tier"


class ExportFormat(StrEnum):
    """How single rows are written."""

    CSV = "csv"
    JSONL = "jsonl"


class UsageView(View):
    """Sums over the hours asked for."""

    group: str
    """The organisation, project, key, model or tier."""
    requests: int
    unknown: int
    """Of these requests, those whose gateway died when bytes may have left."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    engine_s: float
    """Seconds that the requests took, waiting included."""


class DriftView(View):
    """Two counts of the same tokens."""

    between: str
    kind: str
    left: int
    right: int

    @property
    def tokens(self) -> int:
        """By how much they differ."""
        return self.left - self.right


class ReconcileView(View):
    """Usage held against attempts, and attempts against the engines' own counters."""

    since: datetime
    requests: int
    attempts: int
    unresolved: int
    """Requests whose tokens no recorder has told yet."""
    unknown: int
    usage_without_attempt: int
    """Whole answers of which no recorder knows: of external servers, or of a lost node."""
    attempts_without_usage: int
    """Attempts whose request no gateway has settled: it runs, or its journal is still to come."""
    lost_attempts: int
    """Attempts for which a recorder had no room."""
    drifts: list[DriftView]

    @property
    def clean(self) -> bool:
        """Whether all counts agree."""
        return not (
            self.usage_without_attempt
            or self.attempts_without_usage
            or self.lost_attempts
            or self.unresolved
            or any(drift.tokens for drift in self.drifts)
        )


class CompletionsResult(View):
    """One group within a bucket, with OpenAI's names."""

    object: str = "organization.usage.completions.result"
    input_tokens: int
    output_tokens: int
    input_cached_tokens: int
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    num_model_requests: int
    project_id: str | None = None
    user_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    batch: bool | None = None
    service_tier: str | None = None


class UsageBucket(View):
    """A stretch of time."""

    object: str = "bucket"
    start_time: int
    end_time: int
    results: list[CompletionsResult]


class UsagePage(View):
    """OpenAI's page of buckets."""

    object: str = "page"
    data: list[UsageBucket]
    has_more: bool
    next_page: str | None
