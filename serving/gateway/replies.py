"""An engine's answer, and what its failures are called."""

from serving.gateway.upstream import BrokenOffError, Sink, Upstream, Way

ERROR_BODY_BYTES = 2**20
"""As much of an engine's error is read."""

STREAM = "text/event-stream"


class EngineGoneError(Exception):
    """The engine could not be reached: the request never got there."""


class EngineBrokeError(Exception):
    """The engine broke off while it had the request."""


class EngineReply:
    """An engine's answer, whose body is still to be read."""

    __slots__ = ("_upstream", "content_type", "found", "status", "streams")

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.status = upstream.status
        self.content_type = upstream.content_type
        self.found = upstream.found
        self.streams = upstream.content_type.startswith(STREAM)

    async def next_bytes(self) -> bytes:
        """What has arrived since the last call, at least one byte; empty at the end.

        Raises:
            EngineBrokeError: If the answer is cut off.
        """
        try:
            return await self._upstream.read()
        except BrokenOffError as exc:
            raise EngineBrokeError(str(exc)) from exc

    async def pour(self, sink: Sink, way: Way | None = None, *, holds: bool = False) -> bytes:
        """Gives the rest to `sink` as it comes, without a task's wake for each part; what may pass
        as it stands on the wire goes to `way`. Returns what came together with the end.

        Raises:
            EngineBrokeError: If the answer is cut off.
            Exception: What the sink raises.
        """
        try:
            return await self._upstream.pour(sink, way, holds=holds)
        except BrokenOffError as exc:
            raise EngineBrokeError(str(exc)) from exc

    def passed(self) -> int:
        """How many events went the way of `pour` since this was last asked."""
        passed, self._upstream.passed = self._upstream.passed, 0
        return passed

    def pause(self) -> None:
        """Reads no more for now: the engine's server then merges what it has to say."""
        self._upstream.pause()

    def resume(self) -> None:
        """Reads on."""
        self._upstream.resume()

    def fail(self, error: Exception) -> None:
        """Gives the answer up; whoever waits for it gets this error."""
        self._upstream.fail(error)

    async def whole_body(self) -> bytes:
        """The rest of the body.

        Raises:
            EngineBrokeError: If the answer is cut off.
        """
        parts: list[bytes] = []
        while part := await self.next_bytes():
            parts.append(part)
        return b"".join(parts)

    async def error_body(self) -> bytes:
        """The body of an error, cut at ERROR_BODY_BYTES; empty if the engine broke off."""
        parts: list[bytes] = []
        size = 0
        try:
            while size < ERROR_BODY_BYTES and (part := await self.next_bytes()):
                parts.append(part)
                size += len(part)
        except EngineBrokeError:
            return b""
        return b"".join(parts)
