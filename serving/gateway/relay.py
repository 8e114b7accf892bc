"""A stream's way from an engine's connection into a tenant's, within the callback that brings it.

No task wakes for a chunk: that is most of what a chunk cost when one did.
"""

import asyncio

from serving.gateway.bodies import TenantLeftError
from serving.gateway.connection import Tenant
from serving.gateway.engines import EngineReply
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

    async def run(self) -> None:
        """Relays until the engine's answer is complete.

        Raises:
            EngineBrokeError: If the engine broke off.
        """
        self._tenant.on_room = self._go_on
        try:
            if self._tenant.full:
                self._hold()
            await self._reply.pour(self._take)
        finally:
            self._tenant.on_room = None
            if self._timer is not None:
                self._timer.cancel()

    def _take(self, arrived: bytes) -> None:
        lines = self._lines.feed(arrived)
        if not lines:
            return
        if ERROR_MARK in lines:
            before, error = split_at_error(lines)
            if error:
                self.write(before)
                raise EngineError(error)
        tenant = self._tenant
        if out := self._transcript.read(lines):
            tenant.write(out)
            if tenant.full:
                self._hold()

    def write(self, lines: bytes) -> None:
        """Writes lines to the tenant, but for what is to be hidden."""
        if out := self._transcript.read(lines):
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
