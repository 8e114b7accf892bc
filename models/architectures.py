"""The architectures that vLLM serves, by their name in config.json; a list, since vLLM is not here.

`architectures.txt` is made by `scripts/architectures.py` of the vLLM that is installed, and a test
of the engine tier holds it against that.
"""

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from models.errors import SourceError

FILE = Path(__file__).with_suffix(".txt")


class UnknownArchitectureError(SourceError):
    """A model that vLLM has no implementation of."""

    code = "unknown_architecture"


@cache
def known() -> frozenset[str]:
    """All names."""
    return frozenset(FILE.read_text("utf-8").split())


def check_architecture(config: Mapping[str, Any]) -> None:
    """Refuses a config.json that names no architecture of vLLM's.

    Raises:
        UnknownArchitectureError: Naming those that are spelled alike.
    """
    named = config.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    if not names:
        raise UnknownArchitectureError("config.json names no architecture", param="source")
    if any(name in known() for name in names):
        return
    alike = difflib.get_close_matches(names[0], sorted(known()), n=5, cutoff=0.6)
    raise UnknownArchitectureError(
        f"vLLM does not know the architecture {names[0]!r}; it knows {len(known())}"
        + (f", among them {', '.join(alike)}" if alike else ""),
        param="source",
        hint="engine.args {model_impl: transformers} has Transformers run it where that can; "
        "docs/reference/architectures.md lists what vLLM knows",
    )
