"""One connection to an engine's server: HTTP/1.1 by llhttp, straight from the socket's callback.

A stream's bytes go to their sink within the callback that brought them: no task wakes for a chunk.
Knows nothing of models; `engines` keeps the connections.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from serving.gateway.passage import Passage

HIGH_WATER_BYTES = 2**20
"""More is not read ahead of whoever wants it in pieces."""

MAX_HEAD_BYTES = 64 * 2**10

Sink = Callable[[bytes], bool]
"""Takes a part of an answer's body; tells whether it holds back the beginning of a line."""

Way = Callable[[bytes], None]
"""Takes bytes of an answer as they stand on the wire, in HTTP's chunks."""


class BrokenOffError(Exception):
    """The server closed the connection, or spoke no HTTP, within an answer."""


class Upstream(Passage, asyncio.Protocol):
    """A connection that carries one request at a time."""

    __slots__ = (
        "_arrived",
        "_between",
        "_complete",
        "_ends_at_eof",
        "_failure",
        "_head_bytes",
        "_holds",
        "_loop",
        "_parser",
        "_paused",
        "_sink",
        "_size",
        "_transport",
        "_waiter",
        "closed",
        "content_type",
        "found",
        "idle_since_s",
        "reusable",
        "status",
        "wanted",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._arrived: list[bytes] = []
        self._failure: BrokenOffError | None = None
        self._sink: Sink | None = None
        self._holds = False  # the sink, a line that has only begun
        self._between = False  # the parser stands between two of HTTP's chunks
        self._size = 0
        self._head_bytes = 0
        self._complete = False
        self._paused = False
        self._ends_at_eof = True
        self.closed = False
        self.reusable = False
        self.idle_since_s = 0.0  # by the loop's clock
        self.status = 0  # of the answer; 0 until its head is here
        self.content_type = "application/json"
        self.wanted = b""  # a header's name, in lower case
        self.found: str | None = None  # what the answer says there

    # --- for whoever asks ---------------------------------------------------------------------

    async def ask(self, request: bytes) -> None:
        """Sends a request, and returns when the answer's head is here.

        Raises:
            BrokenOffError: If the server broke off before.
        """
        self._parser = httptools.HttpResponseParser(self)
        self._arrived.clear()
        self._size = self._head_bytes = self.status = 0
        self._complete = self.reusable = self._between = self.clear = False
        self._ends_at_eof = True
        self.content_type = "application/json"
        self.found = None
        if self._transport is None or self.closed:
            raise BrokenOffError("the connection is closed")
        self.resume()  # where whoever was served before left as its answer ended
        self._transport.write(request)
        del request  # a copy of the whole body, and the wait can be long
        while not self.status:
            await self._wait()

    async def read(self) -> bytes:
        """What has arrived since the last call, at least one byte; empty at the end.

        Raises:
            BrokenOffError: If the answer is cut off.
        """
        while not self._arrived:
            if self._complete:
                return b""
            await self._wait()
        return self._take()

    async def pour(self, sink: Sink, way: Way | None = None, *, holds: bool = False) -> bytes:
        """Gives all that comes to `sink`, in the callback that brings it, until the end; returns
        what came together with the end, for whoever has something to add to it.

        Args:
            sink: Takes the answer's body.
            way: Takes what may pass as it stands on the wire; the rest is the sink's, and the
                answer's end always.
            holds: The sink holds back the beginning of a line already.

        Raises:
            BrokenOffError: If the answer is cut off; what came before it was given.
            Exception: What the sink raises, which also ends the connection.
        """
        self._holds = sink(self._take()) if self._arrived else holds
        self._sink = sink
        self.way = way
        self.clear = self._between and not self._holds
        try:
            while not self._complete:
                await self._wait()
        finally:
            self._sink = self.way = None
        return self._take() if self._arrived else b""

    def pause(self) -> None:
        """Reads no more until `resume`."""
        if self._transport is not None and not self._paused and not self.closed:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads on."""
        if self._transport is not None and self._paused and not self.closed:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Ends the connection at once, and with it what the engine still does for it."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def break_off(self, reason: str) -> None:
        """Ends the connection as if the server had."""
        self._break(reason)

    def fail(self, error: Exception) -> None:
        """Ends the connection, and whoever waits gets this error."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        self.close()

    def _take(self) -> bytes:
        arrived = self._arrived[0] if len(self._arrived) == 1 else b"".join(self._arrived)
        self._arrived.clear()
        self._size = 0
        self.resume()
        return arrived

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- for the loop -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast("asyncio.Transport", transport)

    def parse(self, data: bytes) -> None:
        """Bytes of the answer that did not pass."""
        parser = self._parser
        if parser is None or self._complete:
            self._break("the server spoke unasked")
            return
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._break(f"the server spoke no HTTP: {exc}")
            return
        if self._between and not data.endswith(b"\r\n"):
            self._between = False  # the next chunk's size has begun
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._break("the answer's head is too long")
            return
        sink = self._sink
        if sink is not None:
            arrived = self._arrived
            if self._complete:
                self._wake()
            elif arrived:
                whole = arrived[0] if len(arrived) == 1 else b"".join(arrived)
                arrived.clear()
                self._size = 0
                try:
                    self._holds = sink(whole)
                except Exception as exc:  # noqa: BLE001, it is raised where `pour` was called
                    self.fail(exc)
            self.clear = self._between and not self._holds
            return
        if self._size > HIGH_WATER_BYTES:
            self.pause()
        self._wake()

    def eof_received(self) -> None:
        """The server has no more to say."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.closed = True
        self.reusable = False
        if self._parser is not None and self.status and self._ends_at_eof and exc is None:
            self._complete = True
            self._wake()
        elif not self._complete:
            self._break(f"the connection was closed: {exc}" if exc else "the connection was closed")

    def _break(self, reason: str) -> None:
        if self._failure is None:
            self._failure = BrokenOffError(reason)
        self.reusable = False
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(self._failure)
        if not self.closed:
            self.close()

    # --- for the parser -----------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.decode("latin-1")
        elif name in (b"content-length", b"transfer-encoding"):
            self._ends_at_eof = False
        elif name == self.wanted:
            self.found = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The answer's head is here, unless it is only an interim one."""
        if self._parser is not None and (status := self._parser.get_status_code()) >= 200:
            self.status = status
            if status in (204, 304):
                self._ends_at_eof = False

    def on_chunk_header(self) -> None:
        """One of HTTP's chunks begins."""
        self._between = False

    def on_chunk_complete(self) -> None:
        """It is here as a whole."""
        self._between = True

    def on_body(self, body: bytes) -> None:
        """A part of the answer."""
        self._arrived.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        """The answer is complete."""
        self._between = False
        if self.status and self._parser is not None:
            self._complete = True
            self.reusable = self._parser.should_keep_alive() and not self.closed
