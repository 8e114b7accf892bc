"""A small HTTP/1.1 server: requests with whole bodies in, answers written straight to the socket.

Its point is what frameworks hide: a chunk costs one write and no task switch, a connection can be
reset in the middle of an answer, and a client that leaves is noticed at once. It is for tests on
trusted networks: no TLS, no timeouts; pipelined requests are answered in order.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import httptools

MAX_BODY_BYTES = 32 * 1024 * 1024


@dataclass(slots=True)
class Request:
    """One request; header names are in lower case."""

    method: str = "GET"
    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Reply:
    """The answer to one request: `send`, or `start` with any number of `write` and one `end`.

    All calls are harmless after the client has left.
    """

    def __init__(self, transport: asyncio.Transport, done: Callable[[], None]) -> None:
        self.on_gone: Callable[[], None] | None = None
        """Called once if the client leaves, or is thrown out, before the end."""
        self._transport = transport
        self._done = done
        self._open = True

    def send(self, status: int, body: bytes, content_type: str = "application/json",
             headers: tuple[tuple[str, str], ...] = ()) -> None:  # fmt: skip
        """The whole answer at once."""
        if not self._open:
            return
        head = self._head(status, content_type, headers, f"content-length: {len(body)}")
        self._transport.write(head + body)
        self._finish()

    def start(self, status: int, content_type: str,
              headers: tuple[tuple[str, str], ...] = ()) -> None:  # fmt: skip
        """The head of an answer in chunks."""
        if self._open:
            self._transport.write(
                self._head(status, content_type, headers, "transfer-encoding: chunked")
            )

    def write(self, data: bytes) -> None:
        """One chunk; `data` is not empty."""
        if self._open:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """The end of an answer in chunks."""
        if self._open:
            self._transport.write(b"0\r\n\r\n")
            self._finish()

    def abort(self) -> None:
        """Resets the connection."""
        self._transport.abort()
        self.gone()

    def gone(self) -> None:
        """The connection is lost."""
        if self._open:
            self._open = False
            if self.on_gone is not None:
                self.on_gone()

    def _finish(self) -> None:
        self._open = False
        self._done()

    @staticmethod
    def _head(
        status: int, content_type: str, headers: tuple[tuple[str, str], ...], length: str
    ) -> bytes:
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"content-type: {content_type}",
            length,
            *(f"{name}: {value}" for name, value in headers),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


Handler = Callable[[Request, Reply], None]


class Connection(asyncio.Protocol):
    """One client's connection; `handle` is called for each request when the one before is done."""

    def __init__(self, handle: Handler, connections: set["Connection"]) -> None:
        self._handle = handle
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._request = Request()
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._queue: deque[tuple[Request, bool]] = deque()
        self._reply: Reply | None = None
        self._keep_alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._connections.discard(self)
        self._queue.clear()
        if self._reply is not None:
            self._reply.gone()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # upgrades (h2c is tried by some clients) are answered as plain HTTP/1.1
        except httptools.HttpParserError:
            self.close()

    def close(self) -> None:
        """Closes the connection after what was written."""
        if self._transport is not None:
            self._transport.close()

    # What the parser calls, in the order of a request.

    def on_message_begin(self) -> None:
        """See httptools."""
        self._request = Request()
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """See httptools."""
        self._request.path = url.decode("latin-1").partition("?")[0]

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        self._request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._request.method = self._parser.get_method().decode("ascii")
        if self._request.headers.get("expect") == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._body_bytes += len(body)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(body)
        else:
            self.close()

    def on_message_complete(self) -> None:
        """See httptools."""
        self._request.body = b"".join(self._body)
        self._queue.append((self._request, self._parser.should_keep_alive()))
        self._next()

    def _next(self) -> None:
        if self._reply is not None or not self._queue or self._transport is None:
            return
        request, self._keep_alive = self._queue.popleft()
        self._reply = Reply(self._transport, self._done)
        self._handle(request, self._reply)

    def _done(self) -> None:
        self._reply = None
        if not self._keep_alive:
            self.close()
            return
        self._next()
