"""HTTP/1.1 over raw asyncio, for measuring: bytes are stamped in the callback that received them.

A general client wakes a task for each piece of a body and stamps it there, behind all that runs
in between; at hundreds of streams that is milliseconds. Here each piece costs one callback. What
it leaves out: proxies, redirects, compression.
"""

import asyncio
import ssl
import time
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

MAX_IDLE_S = 2.0
"""An idle connection is reused for this long only: servers close theirs from 5 s on, and a request
into a connection that the server is just closing would count as a reset that was none."""


class Sink(Protocol):
    """Takes one response as it arrives; times are monotonic seconds."""

    def head(self, status: int) -> None:
        """Status line and headers are complete."""

    def data(self, at_s: float, data: bytes) -> None:
        """A part of the body."""


class ConnectionBroken(Exception):
    """The connection ended before the response did."""


class Wire(asyncio.Protocol):
    """One connection, which carries one exchange at a time."""

    def __init__(self) -> None:
        self.idle_since_s = time.monotonic()
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._sink: Sink | None = None
        self._ended: asyncio.Future[float] | None = None
        self._at_s = 0.0
        self._keep_alive = True
        self._delimited = False  # the response says how long it is, or comes in chunks

    async def exchange(self, request: bytes, sink: Sink) -> float:
        """Sends a request and feeds its response to `sink`; gives back when the response ended.

        Raises:
            ConnectionBroken: It ended too early.
        """
        assert self._transport is not None and self._ended is None
        self._parser = httptools.HttpResponseParser(self)
        self._delimited = False
        self._at_s = 0.0
        self._sink = sink
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._ended
        finally:
            unfinished = not self._ended.done() or self._ended.cancelled()
            self._sink = self._ended = None
            self.idle_since_s = time.monotonic()
            if unfinished or not self._keep_alive:
                self.abort()

    def abort(self) -> None:
        """Drops the connection at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.closed = True
        self._keep_alive = False
        started = self._sink is not None and self._at_s > 0
        if exc is None and started and not self._delimited:
            self._end(time.monotonic())  # such a body ends with its connection
        self._break(str(exc) if exc else "connection closed")

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._at_s = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break(str(error))
            self.abort()

    # What the parser calls.

    def on_header(self, name: bytes, _value: bytes) -> None:
        """See httptools."""
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._delimited = True

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self._sink is not None:
            self._sink.head(self._parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        if self._sink is not None:
            self._sink.data(self._at_s, data)

    def on_message_complete(self) -> None:
        """See httptools."""
        self._keep_alive = self._parser.should_keep_alive()
        self._end(self._at_s)

    def _end(self, at_s: float) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(at_s)

    def _break(self, why: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(ConnectionBroken(why))


class Wires:
    """Connections to one server, reused last in, first out; as many as are needed at once."""

    def __init__(self, base_url: str) -> None:
        url = urlsplit(base_url)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError(f"not an http(s) URL: {base_url!r}")
        self.host = url.netloc.rpartition("@")[2]
        self.path = url.path.rstrip("/")
        self._address = (url.hostname, url.port or (443 if url.scheme == "https" else 80))
        self._ssl = ssl.create_default_context() if url.scheme == "https" else None
        self._idle: list[Wire] = []

    async def exchange(self, request: bytes, sink: Sink) -> float:
        """See Wire.exchange.

        Raises:
            OSError: No connection to the server.
            ConnectionBroken: It ended too early.
        """
        wire = self._reusable() or await self._connect()
        ended_s = await wire.exchange(request, sink)
        if not wire.closed:
            self._idle.append(wire)
        return ended_s

    def close(self) -> None:
        """Drops all idle connections."""
        for wire in self._idle:
            wire.abort()
        self._idle.clear()

    def _reusable(self) -> Wire | None:
        while self._idle:
            wire = self._idle.pop()
            if not wire.closed and time.monotonic() - wire.idle_since_s < MAX_IDLE_S:
                return wire
            wire.abort()
        return None

    async def _connect(self) -> Wire:
        loop = asyncio.get_running_loop()
        _transport, wire = await loop.create_connection(Wire, *self._address, ssl=self._ssl)
        return wire
