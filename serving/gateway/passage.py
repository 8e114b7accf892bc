"""The way of a chunk through the gateway: from an engine's connection straight into a tenant's.

Almost all that an engine says while it streams is to go out exactly as it came, in the very chunks
of HTTP that it came in. This module tells such bytes from those that have to be taken apart, and
passes them on within the socket's callback. `_passage.c` is the same, compiled: each chunk comes
here after a sleep, when an interpreter costs five times what it costs in a loop.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from serving.gateway.stream import ERROR_MARK, EVENT
from serving.gateway.tokens import FIELD

SIZE_CHARS = 3
SIZES = {b"%x" % size: size for size in range(1, 16**SIZE_CHARS)}
"""What may stand before a chunk that passes as it is: nothing but the digits, so that no engine's
odd framing reaches a tenant. Longer chunks are parsed."""


class PlainPassage:
    """One connection's bytes, as its transport tells them."""

    __slots__ = ("clear", "passed", "received", "way")

    def __init__(self) -> None:
        self.way: Callable[[bytes], None] | None = None  # takes what passes, while it may
        self.clear = False  # what came before ended a chunk, and a line
        self.passed = 0  # events that went this way
        self.received = 0  # how often anything was said

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        self.received += 1
        if self.clear and (way := self.way) is not None and (events := events_in(data)) >= 0:
            self.passed += events
            way(data)
        else:
            self.parse(data)

    def parse(self, data: bytes) -> None:
        """Takes bytes apart that did not pass."""
        raise NotImplementedError


def events_in(data: bytes) -> int:
    """How many events stand in bytes that may pass as they are; -1 where they may not."""
    if ERROR_MARK in data or FIELD in data or not is_framed(data):
        return -1
    return data.count(EVENT)


def is_framed(data: bytes) -> bool:
    """Whether bytes are whole HTTP chunks, each of whole lines: then nothing that is looked for
    can lie across two of them."""
    at, end = 0, len(data)
    while at < end:
        line_end = data.find(b"\r\n", at, at + SIZE_CHARS + 2)
        size = SIZES.get(data[at:line_end]) if line_end > 0 else None
        if size is None:
            return False
        at = line_end + 4 + size
        if data[at - 3 : at] != b"\n\r\n":
            return False
    return True


if TYPE_CHECKING:
    Passage = PlainPassage
else:
    try:
        from serving.gateway._passage import Passage
    except ImportError:  # nobody compiled it
        Passage = PlainPassage

COMPILED = Passage is not PlainPassage
