"""What the gateway understands of a stream of server-sent events: lines, errors, and usage."""

import re

import orjson

from serving.gateway.tokens import FIELD, Tokens, last_usage

EVENT = b'data: {"'
"""Begins each event with a JSON object; within JSON text its quote would be escaped."""

ERROR_MARK = b'{"error"'
"""In all of them; looked for first, for it is nearly never there."""

ROLE_ONLY = b'"role":"assistant","content":""'
"""In the first event of vLLM's chats, which bears no token."""

GAP = b"\n\n"
"""Ends an event."""

CRLF_GAP = b"\r\n\r\n"
"""As some servers elsewhere write it; within JSON text line ends are escaped."""

NO_CHOICES = re.compile(rb'"choices": ?\[\]')
"""In the event that bears usage alone."""

ERROR_EVENT = b'data: {"error"'
"""How vLLM begins the event of a generation that failed. Text cannot look like it: within JSON
its quotes are escaped."""


class WholeLines:
    """Lets whole lines pass and holds back a line that has only begun.

    An engine that dies mid-line would otherwise leave the tenant with half an event, and its
    client with a parse error in place of the error event that follows.
    """

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, chunk: bytes) -> bytes:
        """Takes bytes in, and gives those that may go out; almost always the very same."""
        if not self._begun and chunk.endswith(b"\n"):
            return chunk
        whole = self._begun + chunk
        end = whole.rfind(b"\n") + 1
        self._begun = whole[end:]
        return whole[:end]

    @property
    def has_begun(self) -> bool:
        """Whether a line is held back."""
        return bool(self._begun)

    def rest(self) -> bytes:
        """What is still held back when the stream has ended in good order."""
        rest, self._begun = self._begun, b""
        return rest


def split_at_error(chunk: bytes) -> tuple[bytes, bytes]:
    """What comes before an engine's error event, and the error's JSON; empty if there is none."""
    place = chunk.find(ERROR_EVENT)
    if place < 0:
        return chunk, b""
    return chunk[:place], chunk[place + len(b"data: ") :].split(b"\n", 1)[0]


def status_in_error(error: bytes) -> int:
    """The HTTP status that an engine's error event stands for; 500 where it does not say."""
    try:
        code = orjson.loads(error)["error"]["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 500
    return code if isinstance(code, int) and 400 <= code < 600 else 500


class Transcript:
    """Reads along with a stream: counts its parts, notes its usage, and hides the chunk that
    carries nothing but usage from a tenant who did not ask for it.

    Args:
        hide_usage: The usage was asked for by us, not by the tenant.
    """

    def __init__(self, *, hide_usage: bool) -> None:
        self._hide_usage = hide_usage
        self._begun = False
        self.tokens: Tokens | None = None
        self.delivered = 0  # events that bear a part of the answer

    def read(self, lines: bytes) -> bytes:
        """Takes whole lines, and gives those that the tenant gets; mostly the very same bytes."""
        if not self._begun:
            self._begun = True
            self.delivered -= lines.count(ROLE_ONLY)
        self.delivered += lines.count(EVENT)
        return self._read_usage(lines) if FIELD in lines else lines

    def _read_usage(self, lines: bytes) -> bytes:
        if (tokens := last_usage(lines)) is not None:
            self.tokens = tokens
        gap = CRLF_GAP if CRLF_GAP in lines else GAP
        *whole, begun = lines.split(gap)
        kept = []
        for event in (*(one + gap for one in whole), begun):
            if FIELD in event and NO_CHOICES.search(event):
                self.delivered -= 1
                if self._hide_usage:
                    # The end of the event before, where what arrived was cut there.
                    kept.append(event[: len(event) - len(event.lstrip(b"\r\n"))])
                    continue
            kept.append(event)
        return b"".join(kept)
