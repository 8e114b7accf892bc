"""What callers type, checked as the admin API checks it, and before it is asked."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from models.errors import BadRequestError
from models.faults import faults_of

BodyT = TypeVar("BodyT", bound=BaseModel)

ModelArgument = Annotated[str, typer.Argument(help="Name of the model.")]

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
LONGEST_S = 100 * 365 * 86_400.0
"""Of a duration: a century."""


def checked(kind: type[BodyT], **fields: object) -> BodyT:
    """A body of these fields; None stands for one that was not given.

    Raises:
        BadRequestError: Naming the first field at fault.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return kind.model_validate(given)
    except ValidationError as exc:
        fault = faults_of(exc)[0]
        raise BadRequestError(fault.named(), param=fault.field or None) from exc


def seconds(text: str, param: str) -> float:
    """A duration as `90s`, `15m`, `12h` or `30d` in seconds, at most LONGEST_S.

    Raises:
        BadRequestError: If it is none.
    """
    number, unit = text[:-1], text[-1:]
    try:
        found = float(number) * UNITS[unit]
    except (KeyError, ValueError):
        found = -1.0
    if not 0.0 <= found <= LONGEST_S:  # nor is nan
        raise BadRequestError(f"{param} must be a duration as 90s, 15m, 12h or 30d", param=param)
    return found


def in_future(duration: str | None, param: str) -> datetime | None:
    """The moment after a duration from now; None for none."""
    if duration is None:
        return None
    return datetime.now(UTC) + timedelta(seconds=seconds(duration, param))


def models(names: list[str] | None) -> tuple[str, ...] | None:
    """An allow-list as it was typed; None where no name was given."""
    return tuple(names) if names else None


def allowed(names: list[str] | None, *, everything: bool) -> tuple[str, ...] | None:
    """What an allow-list shall be: the names that were typed, or with `everything` none.

    Raises:
        BadRequestError: If it is neither or both.
    """
    if everything == bool(names):
        raise BadRequestError("give either --model, once or more, or --all")
    return models(names)
