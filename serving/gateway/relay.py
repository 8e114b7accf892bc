"""A stream's way from an engine's connection into a tenant's, within the callback that brings it.

No task wakes for a chunk: that is most of what a chunk cost when one did. What is left is bytes
that are moved, so that an event is mostly not even unwrapped: an engine's HTTP chunks that hold
whole lines, none of which is to be looked at, go out as they came.
"""

import asyncio

from serving.gateway.bodies import TenantLeftError
from serving.gateway.connection import Tenant
from serving.gateway.replies import EngineReply
from serving.gateway.stream import ERROR_MARK, Transcript, WholeLines, split_at_error


class EngineError(Exception):
    """An engine reported within its stream that it failed.

    Args:
        error: The JSON of its error event.
    """

    def __init__(self, error: bytes) -> None:
        super().__init__(error.decode(errors="replace"))
        self.error = error


class SlowReaderError(TenantLeftError):
    """The tenant did not read for so long that its connection was cut."""


class Relay:
    """One stream on its way.

    A tenant who does not read makes us read no more of the engine (its server then merges what it
    has to say), so that what waits here stays within the transport's buffer; after
    `slow_client_timeout_s` of that the connection is cut.

    Raises:
        EngineError: From `run`, if the engine reports an error.
        SlowReaderError: From `run`, if the tenant does not read.
    """

    def __init__(
        self, reply: EngineReply, tenant: Tenant, transcript: Transcript, lines: WholeLines,
        slow_client_timeout_s: float,
    ) -> None:  # fmt: skip
        self._reply = reply
        self._tenant = tenant
        self._transcript = transcript
        self._lines = lines
        self._patience_s = slow_client_timeout_s
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> bytes:
        """Relays until the engine's answer is complete; returns the last of it, which can so be
        written together with the end.

        Raises:
            EngineBrokeError: If the engine broke off.
        """
        tenant = self._tenant
        tenant.on_full, tenant.on_room = self._hold, self._go_on
        try:
            if tenant.full:
                self._hold()
            way, holds = tenant.way_of_chunks, self._lines.has_begun
            last = await self._reply.pour(self._take, way, holds=holds)
        finally:
            tenant.on_full = tenant.on_room = None
            self._transcript.delivered += self._reply.passed()
            if self._timer is not None:
                self._timer.cancel()
        return self._transcript.read(self._checked(self._lines.feed(last)) + self._lines.rest())

    def _take(self, arrived: bytes) -> bool:
        self.write(self._checked(self._lines.feed(arrived)))
        return self._lines.has_begun

    def _checked(self, lines: bytes) -> bytes:
        """The very same; what stands before an error is written."""
        if ERROR_MARK in lines:
            before, error = split_at_error(lines)
            if error:
                self.write(before)
                raise EngineError(error)
        return lines

    def write(self, lines: bytes) -> None:
        """Writes lines to the tenant, but for what is to be hidden."""
        if lines and (out := self._transcript.read(lines)):
            self._tenant.write(out)

    def _hold(self) -> None:
        self._reply.pause()
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._patience_s, self._give_up)

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._reply.resume()

    def _give_up(self) -> None:
        self._timer = None
        self._reply.fail(SlowReaderError())
        self._tenant.cut()
