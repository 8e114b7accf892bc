"""HTTP/1.1 over raw asyncio, for measuring: bytes are stamped in the callback that received them.

A general client wakes a task for each piece of a body and stamps it there, behind all that runs
in between; at hundreds of streams that is milliseconds. Here each piece costs one callback.
"""

import asyncio
import ssl
import time
from typing import cast

from loadtests.exchange import MAX_IDLE_S, Address, ConnectionBroken, Exchange, Sink


class Wire(asyncio.Protocol):
    """One connection, which carries one exchange at a time."""

    def __init__(self) -> None:
        self.idle_since_s = time.monotonic()
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._ended: asyncio.Future[float] | None = None

    async def exchange(self, request: bytes, sink: Sink) -> float:
        """Sends a request and feeds its response to `sink`; gives back when the response ended.

        Raises:
            ConnectionBroken: It ended too early.
        """
        assert self._transport is not None and self._exchange is None
        exchange = self._exchange = Exchange(sink)
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._ended
        finally:
            self._exchange = self._ended = None
            self.idle_since_s = time.monotonic()
            if not exchange.keep_alive:
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
        if self._exchange is None:
            return
        if exc is not None:
            self._break(ConnectionBroken(str(exc)))
            return
        try:
            self._exchange.eof()
        except ConnectionBroken as error:
            self._break(error)
        else:
            self._end(time.monotonic())

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        at_s = time.monotonic()
        if self._exchange is None:
            return
        try:
            self._exchange.feed(at_s, data)
        except ConnectionBroken as error:
            self._break(error)
            return
        if self._exchange.ended:
            self._end(at_s)

    def _end(self, at_s: float) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(at_s)

    def _break(self, error: ConnectionBroken) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)


class Wires:
    """Connections to one server, reused last in, first out; as many as are needed at once."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._ssl = ssl.create_default_context() if address.tls else None
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
        _transport, wire = await loop.create_connection(
            Wire, self._address.host, self._address.port, ssl=self._ssl
        )
        return wire
