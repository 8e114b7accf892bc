"""What the gateway understands of a stream of server-sent events: lines, and errors among them."""

import orjson

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
