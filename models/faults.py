"""What is wrong with data that somebody wrote, in words for them."""

from typing import NamedTuple

from pydantic import ValidationError

_OURS = "Value error, "
"""What pydantic puts before the words of a validator."""


class Fault(NamedTuple):
    """One thing that is wrong."""

    field: str
    """Where, as `engine.max_model_len`; empty: nowhere but in the whole."""
    reason: str
    hint: str | None = None
    """What to do about it, where the error that a validator raised has one."""

    def named(self, whole: str = "") -> str:
        """As `field: reason`; what is wrong with the whole bears its name, if it has one."""
        place = self.field or whole
        return f"{place}: {self.reason}" if place else self.reason


def faults_of(exc: ValidationError) -> list[Fault]:
    """All that pydantic found, at least one; the values themselves are not told."""
    return [
        Fault(
            ".".join(map(str, fault["loc"])),
            fault["msg"].removeprefix(_OURS),
            getattr(fault.get("ctx", {}).get("error"), "hint", None),
        )
        for fault in exc.errors(include_url=False, include_input=False)
    ]
