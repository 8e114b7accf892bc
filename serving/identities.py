"""Who may do what, how much of it, and at what price: what gateways are told of tenants.

Each record has an id that no other record of any kind has, so that one list names what is gone.
Money is whole picodollars, see `serving.money`. Times are Unix seconds.
"""

from enum import StrEnum

from pydantic import Field

from models.adapters_spec import served_name, split_name
from serving.messages import Message

ALL_MODELS = "*"
ANY = "*"

DEFAULT_ORG = "org-default"
DEFAULT_PROJECT = "proj-default"
"""There from the first migration on; what keys of the whole platform use is charged to them."""


class Role(StrEnum):
    """What a key may do; `serving.controller.access` says it for each route."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"
    INFERENCE = "inference"


class KeySecret(Message):
    """What is stored of a key's plain text: never the plain text."""

    prefix: str
    """The key's first characters, for lookup and display; several keys may share it."""
    salt: str
    digest: str = Field(repr=False)
    """hex(SHA-256(salt + key)); keys are random, so that no slow hash is needed."""
    expires_at: float | None = None


class KeyRecord(Message):
    """A key that is valid now or was until it expired."""

    key_id: str
    name: str
    role: Role
    prefix: str
    """The key's first characters, for lookup and display; several keys may share it."""
    salt: str
    digest: str = Field(repr=False)
    """hex(SHA-256(salt + key)); keys are random, so that no slow hash is needed."""
    org_id: str = ""
    """Empty for a key of the platform's own people, which belongs to no tenant."""
    project_id: str = ""
    models: tuple[str, ...] | None = None
    """The only models that this key may call; none: all of them."""
    expires_at: float | None = None
    previous: KeySecret | None = None
    """The plain text before the last rotation, while both are valid."""

    def may_call(self, model: str) -> bool:
        """Whether the model is on the key's list: itself, or as one of `model:*`.

        A model on the list opens none of its adapters: they may be another tenant's.
        """
        if self.models is None or model in self.models:
            return True
        name, adapter = split_name(model)
        return bool(adapter) and served_name(name, "*") in self.models


class LimitRecord(Message):
    """What one organisation, project or key may use; a limit that is None does not limit."""

    limit_id: str
    scope_id: str
    """Of an organisation, a project or a key."""
    model: str = ALL_MODELS
    """The model that it holds for, or ALL_MODELS: then it holds for their sum."""
    requests_per_min: int | None = None
    input_tokens_per_min: int | None = None
    output_tokens_per_min: int | None = None
    concurrent: int | None = None
    max_tokens: int | None = None
    """Largest completion of one request."""
    budget_day: int | None = None
    """Picodollars in a calendar day, UTC."""
    budget_month: int | None = None


class TokenPrice(Message):
    """Picodollars for each token, from a moment on until a later one takes its place."""

    price_id: str
    model: str = ALL_MODELS
    tier: str = ANY
    """The service tier, as `default`, `flex`, `priority`."""
    since: float = 0.0
    input: int = Field(ge=0)
    cached: int = Field(ge=0)
    output: int = Field(ge=0)


class IdentitiesDelta(Message):
    """What changed since the caller's version; everything where `full`."""

    version: int
    full: bool
    keys: tuple[KeyRecord, ...] = ()
    limits: tuple[LimitRecord, ...] = ()
    prices: tuple[TokenPrice, ...] = ()
    removed: tuple[str, ...] = ()
    """Ids of keys, limits and prices that are gone."""
