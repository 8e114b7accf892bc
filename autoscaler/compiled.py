"""Compiles plain functions over arrays by numba, where that is installed.

Without it the same code runs as plain Python: the same figures, some hundred times slower.
"""

from collections.abc import Callable
from typing import Any, TypeVar

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

try:
    import numba  # type: ignore[import-untyped]
except ImportError:  # an optional dependency
    numba = None


def compiled(function: FunctionT) -> FunctionT:
    """Compiles for speed where that is possible, keeping the machine code on disk if it may."""
    if numba is None:
        return function
    try:
        kept: FunctionT = numba.njit(cache=True)(function)
        return kept
    except RuntimeError:  # no folder to keep it in
        made: FunctionT = numba.njit(function)
        return made
