"""How ids, times and allow-lists stand in the rows of tenants."""

import json
import secrets
from datetime import UTC, datetime

from models.errors import BadRequestError


def new_id(kind: str) -> str:
    """An id that nothing else has."""
    return f"{kind}-{secrets.token_hex(8)}"


def moment(at: float) -> datetime:
    """Unix seconds as a time in UTC."""
    return datetime.fromtimestamp(at, UTC)


def seconds(when: datetime, param: str) -> float:
    """A time as Unix seconds.

    Raises:
        BadRequestError: If it does not say its time zone.
    """
    if when.tzinfo is None:
        raise BadRequestError(
            f"{param} must say its time zone, as 2026-12-31T23:59:59Z", param=param
        )
    return when.timestamp()


def json_of(models: tuple[str, ...] | None) -> str | None:
    """An allow-list as it is stored."""
    return None if models is None else json.dumps(sorted(set(models)))


def models_of(stored: str | None) -> tuple[str, ...] | None:
    """An allow-list as it was stored."""
    return None if stored is None else tuple(json.loads(stored))
