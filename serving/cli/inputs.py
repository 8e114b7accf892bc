"""What callers type, checked as the admin API checks it, and before it is asked."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from models.errors import BadRequestError

BodyT = TypeVar("BodyT", bound=BaseModel)

ModelArgument = Annotated[str, typer.Argument(help="Name of the model.")]

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def checked(kind: type[BodyT], **fields: object) -> BodyT:
    """A body of these fields; None stands for one that was not given.

    Raises:
        BadRequestError: Naming the first field at fault.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return kind.model_validate(given)
    except ValidationError as exc:
        fault = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in fault["loc"])
        message = str(fault["msg"]).removeprefix("Value error, ")
        raise BadRequestError(f"{param}: {message}", param=param) from exc


def seconds(text: str, param: str) -> float:
    """A duration as `90s`, `15m`, `12h` or `30d` in seconds.

    Raises:
        BadRequestError: If it is none.
    """
    number, unit = text[:-1], text[-1:]
    try:
        return float(number) * UNITS[unit]
    except (KeyError, ValueError):
        raise BadRequestError(
            f"{param} must be a duration as 90s, 15m, 12h or 30d", param=param
        ) from None


def in_future(duration: str | None, param: str) -> datetime | None:
    """The moment after a duration from now; None for none."""
    if duration is None:
        return None
    return datetime.now(UTC) + timedelta(seconds=seconds(duration, param))


def models(names: list[str] | None) -> tuple[str, ...] | None:
    """An allow-list as it was typed; None where no name was given."""
    return tuple(names) if names else None
