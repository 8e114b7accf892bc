"""New names for requests: 128 random bits in hex, drawn for many at a time.

A UUID costs a system call and some microseconds; a request needs two names.
"""

import os

HEX_CHARS = 32
DRAWN = 256

_drawn: list[str] = []

os.register_at_fork(after_in_child=_drawn.clear)


def new_id() -> str:
    """A name that nobody has had before, nor could guess."""
    if not _drawn:
        digits = os.urandom(DRAWN * HEX_CHARS // 2).hex()
        _drawn.extend(digits[at : at + HEX_CHARS] for at in range(0, len(digits), HEX_CHARS))
    return _drawn.pop()
