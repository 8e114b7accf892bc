"""A worker's pulse: it tells its supervisor that its loop turns, by a byte through a pipe.

Nobody can ask one worker of several by the port that they share. The first byte says that it
serves. A worker of a version before closes its end then: nothing more is known of it.
"""

import asyncio
import os
from contextlib import suppress
from typing import Self

from serving.background import set_within
from serving.gateway.handover import READY

BEAT_S = 1.0

LOOK_S = 10.0

SILENCES = 6
"""A worker that was not heard between so many looks in a row hangs: after a minute, as `penstock
up` and the chart's probes have it. Looks count and not seconds: a machine or a supervisor that was
itself stopped has not looked meanwhile."""


async def beat(descriptor: int) -> None:
    """Beats until nobody listens any more, as a supervisor of a version before; then closes."""
    os.set_blocking(descriptor, False)
    try:
        while True:
            with suppress(BlockingIOError):  # the supervisor does not read just now
                os.write(descriptor, READY)
            await asyncio.sleep(BEAT_S)
    except BrokenPipeError:
        return
    finally:
        os.close(descriptor)


class Pulse(asyncio.Protocol):
    """The supervisor's end of one worker's pipe; made by `of`."""

    def __init__(self) -> None:
        self._transport: asyncio.BaseTransport | None = None
        self._said = asyncio.Event()
        self.beats = 0  # so far
        self._seen = 0  # of them, at the last look
        self._silences = 0
        self._ended = False

    @classmethod
    async def of(cls, descriptor: int) -> Self:
        """Listens at the reading end of a pipe, which it closes at last."""
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        _, pulse = await asyncio.get_running_loop().connect_read_pipe(cls, pipe)
        return pulse

    async def ready(self, timeout_s: float) -> bool:
        """Whether the worker serves; False if it ended before, or said nothing in time."""
        await set_within(self._said, timeout_s)
        return self.beats > 0

    def look(self) -> bool:
        """Whether the worker hangs; to be asked each LOOK_S."""
        is_silent = self.beats == self._seen and not self._ended
        self._silences = self._silences + 1 if is_silent else 0
        self._seen = self.beats
        return self._silences >= SILENCES

    def close(self) -> None:
        """Listens no more."""
        if self._transport is not None:
            self._transport.close()

    # --- asyncio's callbacks ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """The worker beat."""
        self.beats += len(data)
        self._said.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker closed its end, or is gone."""
        self._ended = True
        self._said.set()
