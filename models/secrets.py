"""Named secrets: a manifest says `${secret:NAME}`, and only the process that needs it looks it up.

Nothing else is substituted in a manifest, no other variable of the environment above all: what a
manifest says must not depend on who reads it where.
"""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field

from models.errors import SourceError

SecretRef = Annotated[str, Field(pattern=r"^\$\{secret:[A-Z][A-Z0-9_]{0,62}\}$")]
"""The name of a secret as a manifest's field has it; the secret itself is refused there."""

_REFERENCE = re.compile(r"\$\{secret:([A-Z][A-Z0-9_]{0,62})\}")


class SecretError(SourceError):
    """A secret that nobody gave to this process."""

    code = "no_such_secret"


class Secrets:
    """The secrets of one process: files of a folder, and variables that begin with a prefix.

    Args:
        folder: Each file in it is a secret of that name, as Kubernetes mounts them.
        prefix: Of the variables that are secrets; none: only files count.
    """

    def __init__(self, folder: Path | None = None, prefix: str | None = None) -> None:
        self._folder = folder
        self._prefix = prefix

    def read(self, reference: str | None) -> str | None:
        """The secret of a reference, anew each time: secrets are rotated. None for none.

        Raises:
            SecretError: If there is none of that name.
        """
        if reference is None:
            return None
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise SecretError("not the name of a secret; write ${secret:NAME}")
        name = found[1]
        if self._folder is not None:
            try:
                return (self._folder / name).read_text("utf-8").strip()
            except OSError:
                pass  # it may be a variable
        value = os.environ.get(f"{self._prefix}{name}") if self._prefix else None
        if not value:
            variable = f", or into the variable {self._prefix}{name}" if self._prefix else ""
            raise SecretError(
                f"there is no secret {name}",
                hint=f"put it into the file {name} of the secrets' folder (secrets_dir){variable}, "
                "of controller and hosts alike",
            )
        return value
