"""Tells a streaming client that its request still waits: SSE comments until the answer starts.

Only where the model's manifest (`scaling.keep_alive_s`) or the request's header allows it, for the
status is fixed as 200 by the first comment: whatever goes wrong later is an SSE error event.
"""

import asyncio
import contextlib
import math
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from starlette.types import Message, Send

from models.errors import PenstockError
from serving.background import cancel
from serving.gateway.errors import Answer, Shape, answer_of, sse_event

HEADER = b"x-penstock-keep-alive-s"
"""A client that takes comments says after how many seconds without an answer."""

COMMENT = b": waiting\n\n"
EACH_S = 5.0
"""Between two comments: shorter than any proxy's patience that we know of."""
LEAST_S = 0.1
MOST_S = 3600.0


def keep_alive_after_s(
    headers: Iterable[tuple[bytes, bytes]], manifest_s: float | None, *, streams: bool
) -> float | None:
    """After how long a waiting client is told so; None: never.

    Args:
        headers: Of the request; its header counts before the manifest, and 0 in it switches off.
        manifest_s: What the model's manifest allows.
        streams: Whether the client asked for a stream.
    """
    if not streams:
        return None
    for name, value in headers:
        if name == HEADER:
            with contextlib.suppress(ValueError):
                asked_s = float(value)
                if asked_s == 0:
                    return None
                if math.isfinite(asked_s) and asked_s > 0:
                    return min(MOST_S, max(LEAST_S, asked_s))
    return manifest_s


class KeepAlive:
    """Stands before a request's `send` until its answer has started.

    Args:
        send: The tenant's.
        after_s: Seconds until the first comment; None: there is none.
        shape: Of errors that this route's clients know.
    """

    def __init__(self, send: Send, after_s: float | None, shape: Shape) -> None:
        self.opened = False
        self.send = send if after_s is None else self._patient
        """The request's own `send` from now on."""
        self._send = send
        self._after_s = after_s
        self._shape = shape
        self._sending = asyncio.Lock()
        self._started = False
        self._refusal: bytearray | None = None
        self._status = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._after_s is not None:
            self._task = asyncio.create_task(self._comment(self._after_s))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await cancel(self._task)

    async def _patient(self, message: Message) -> None:
        """Passes on; an answer that is no stream becomes an event where a stream has begun."""
        if not self._started:
            async with self._sending:  # a comment that is on its way goes first
                self._started = True
            if self._task is not None:
                self._task.cancel()
        if not self.opened:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self._status = message["status"]
            if not _is_stream(message):
                self._refusal = bytearray()
        elif self._refusal is None:
            await self._send(message)
        else:
            self._refusal += message.get("body", b"")
            if not message.get("more_body", False):
                await self._end(Answer(self._status, bytes(self._refusal)))

    async def told(self, error: PenstockError) -> bool:
        """Ends the stream with the error, where one has begun; whether it had."""
        if self.opened and not self._started:
            self._started = True
            await self._end(answer_of(error))
        return self.opened

    async def _end(self, answer: Answer) -> None:
        event = sse_event(answer, self._shape)
        await self._send({"type": "http.response.body", "body": event})

    async def _comment(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        while not self._started:
            async with self._sending:
                if self._started:
                    return
                if not self.opened:
                    self.opened = True
                    await self._send(_START)
                await self._send({"type": "http.response.body", "body": COMMENT, "more_body": True})
            await asyncio.sleep(EACH_S)


_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
    ],
}


def _is_stream(start: Message) -> bool:
    return any(
        name == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start.get("headers", ())
    )
