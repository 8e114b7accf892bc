"""Limits in the admin API: resources and bodies, shared by the controller and the CLI.

    GET    /admin/v1/limits?scope_id=                Items[LimitView]
    PUT    /admin/v1/limits/{scope_id}/{model}       LimitSpec -> LimitView; `*`: all models
    DELETE /admin/v1/limits/{scope_id}/{model}       204

A scope is an organisation, a project or a key. All limits that touch a request hold at once.
"""

from decimal import Decimal

from pydantic import Field

from serving.identities import LimitRecord
from serving.money import picodollars, plain
from serving.tenancy import Body
from serving.views import View

MOST = 10**15


class LimitSpec(Body):
    """What a scope may use; what is not given is not limited, 0 allows nothing."""

    requests_per_min: int | None = Field(default=None, ge=0, le=MOST)
    """Requests in any 60 seconds."""
    input_tokens_per_min: int | None = Field(default=None, ge=0, le=MOST)
    """Tokens of prompts in any 60 seconds."""
    output_tokens_per_min: int | None = Field(default=None, ge=0, le=MOST)
    """Tokens of answers in any 60 seconds; counted at the time of their request."""
    concurrent: int | None = Field(default=None, ge=0, le=MOST)
    """Requests that wait or run at once."""
    max_tokens: int | None = Field(default=None, ge=1, le=MOST)
    """Largest completion of one request."""
    budget_day: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Dollars in a calendar day, UTC."""
    budget_month: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Dollars in a calendar month, UTC."""

    def record(self, scope_id: str, model: str) -> LimitRecord:
        """As it is stored, and told to gateways.

        Raises:
            BadRequestError: If a budget is finer than a picodollar, or too large.
        """
        fields = self.model_dump(exclude={"budget_day", "budget_month"})
        return LimitRecord(
            limit_id=limit_id(scope_id, model),
            scope_id=scope_id,
            model=model,
            budget_day=_pico(self.budget_day, "budget_day"),
            budget_month=_pico(self.budget_month, "budget_month"),
            **fields,
        )


class LimitView(View):
    """What a scope may use."""

    scope_id: str
    model: str
    requests_per_min: int | None
    input_tokens_per_min: int | None
    output_tokens_per_min: int | None
    concurrent: int | None
    max_tokens: int | None
    budget_day: str | None
    """Dollars."""
    budget_month: str | None

    @classmethod
    def of(cls, record: LimitRecord) -> "LimitView":
        """The view of a stored limit."""
        fields = record.model_dump(exclude={"limit_id", "budget_day", "budget_month"})
        day, month = record.budget_day, record.budget_month
        return cls(
            budget_day=None if day is None else plain(day),
            budget_month=None if month is None else plain(month),
            **fields,
        )


def limit_id(scope_id: str, model: str) -> str:
    """The id of a scope's limit for a model."""
    return f"limit:{scope_id}:{model}"


def _pico(amount: Decimal | None, param: str) -> int | None:
    return None if amount is None else picodollars(amount, param)
