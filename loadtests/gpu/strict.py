"""JSON that every reader takes: a figure that is no number (NaN, infinite) is null."""

import json
import math


def dumps(document: object, indent: int | None = None) -> str:
    """The document, with null for each figure that is none."""
    return json.dumps(_plain(document), indent=indent, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
