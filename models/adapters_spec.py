"""The part of a manifest that names LoRA adapters, and the names under which they are served."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

SEPARATOR = ":"
"""Between a model's name and its adapter's: `guide:pirate`."""

LONGEST_SERVED = 63
"""Characters of both together: what usage, prices and limits keep of a name."""

_PART = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_SERVED = re.compile(rf"{_PART}(?::(?:{_PART}|\*))?")


def served_name(model: str, adapter: str) -> str:
    """The name that tenants call for a model with an adapter."""
    return f"{model}{SEPARATOR}{adapter}"


def split_name(served: str) -> tuple[str, str]:
    """Model and adapter of what tenants call; no adapter is empty."""
    model, _, adapter = served.partition(SEPARATOR)
    return model, adapter


def _check_served(name: str) -> str:
    if len(name) > LONGEST_SERVED or _SERVED.fullmatch(name) is None:
        raise ValueError(
            "write `model`, `model:adapter`, or `model:*` for all adapters of a model, in lower "
            f"case, at most {LONGEST_SERVED} characters"
        )
    return name


def _check_callable(name: str) -> str:
    if name.endswith("*"):
        raise ValueError("name one model or one adapter")
    return _check_served(name)


ServedName = Annotated[str, AfterValidator(_check_callable)]
"""A model, or a model with one of its adapters."""

AllowedName = Annotated[str, AfterValidator(_check_served)]
"""An entry of an allow-list: a model (without its adapters), one of its adapters, or all."""


class LoraSpec(BaseModel):
    """What an engine keeps room for, so that adapters can come and go while it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 16
    """Highest rank of an adapter; each place takes memory for it."""
    at_once: int = Field(default=4, ge=1, le=128)
    """Different adapters that one batch may use; requests for further ones wait."""
    in_memory: int = Field(default=16, ge=1, le=4096)
    """Adapters that are kept in the host's memory; others are read again when they are asked for.
    At least `at_once`."""

    @model_validator(mode="after")
    def _keeps_what_it_uses(self) -> Self:
        if self.in_memory < self.at_once:
            raise ValueError(f"in_memory ({self.in_memory}) must not be below at_once")
        return self


def check_names(model: str, adapters: tuple[str, ...]) -> None:
    """Refuses names that cannot be served beside each other.

    Raises:
        ValueError: Naming the adapter at fault.
    """
    for name in adapters:
        if adapters.count(name) > 1:
            raise ValueError(f"adapters: two are named {name!r}")
        if len(served_name(model, name)) > LONGEST_SERVED:
            raise ValueError(
                f"adapters: {served_name(model, name)!r} is longer than {LONGEST_SERVED} characters"
            )
