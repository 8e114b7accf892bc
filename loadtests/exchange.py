"""One HTTP/1.1 exchange without the socket: requests rendered, responses taken apart. Pure.

What it leaves out: proxies, redirects, compression.
"""

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import httptools

MAX_IDLE_S = 2.0
"""An idle connection is reused for this long only: servers close theirs from 5 s on, and a request
into a connection that the server is just closing would count as a reset that was none."""


class ConnectionBroken(Exception):
    """The connection ended before the response did, or what came is no HTTP."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and how requests to it begin."""

    base_url: str
    """Without `/v1` and trailing slashes."""
    host: str
    port: int
    tls: bool
    head: str
    """Headers of every request."""
    prefix: str
    """Path of the base URL."""

    @classmethod
    def of(cls, url: str, api_key: str | None) -> "Address":
        """Reads a base URL, with or without `/v1`.

        Raises:
            ValueError: It is no http(s) URL.
        """
        base_url = url.rstrip("/").removesuffix("/v1").rstrip("/")
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {url!r}")
        tls = parts.scheme == "https"
        head = f"host: {parts.netloc.rpartition('@')[2]}\r\naccept: */*\r\n"
        if api_key is not None:
            head += f"authorization: Bearer {api_key}\r\n"
        port = parts.port or (443 if tls else 80)
        return cls(base_url, parts.hostname, port, tls, head, parts.path)

    def request(self, path: str, body: bytes | None, request_id: str | None = None) -> bytes:
        """A whole request: POST with a JSON body, GET without one."""
        if body is None:
            return f"GET {self.prefix}{path} HTTP/1.1\r\n{self.head}\r\n".encode("latin-1")
        named = f"x-request-id: {request_id}\r\n" if request_id is not None else ""
        head = (
            f"POST {self.prefix}{path} HTTP/1.1\r\n{self.head}{named}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1") + body


class Sink(Protocol):
    """Takes one response as it arrives; times are monotonic seconds."""

    def head(self, status: int) -> None:
        """Status line and headers are complete."""

    def data(self, at_s: float, data: bytes) -> None:
        """A part of the body."""


@dataclass(slots=True)
class Collected:
    """A sink that keeps a whole body."""

    status: int = 0
    body: bytes = b""

    def head(self, status: int) -> None:
        """See Sink."""
        self.status = status

    def data(self, at_s: float, data: bytes) -> None:
        """See Sink."""
        del at_s
        self.body += data


class Exchange:
    """Takes the bytes of one response apart for a sink."""

    def __init__(self, sink: Sink) -> None:
        self.ended = False
        self.keep_alive = False
        """Whether the connection can be used again; known at the end."""
        self.at_s = 0.0
        """When the last bytes came."""
        self._sink = sink
        self._parser = httptools.HttpResponseParser(self)
        self._headed = False
        self._delimited = False  # the response says how long it is, or comes in chunks

    def feed(self, at_s: float, data: bytes) -> None:
        """Bytes have come.

        Raises:
            ConnectionBroken: They are no HTTP.
        """
        self.at_s = at_s
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ConnectionBroken(str(error)) from error

    def eof(self) -> None:
        """The server has closed the connection; the end of a response that says no length.

        Raises:
            ConnectionBroken: It was not the end.
        """
        if not self._headed or self._delimited:
            raise ConnectionBroken("connection closed")
        self.ended = True

    # What the parser calls.

    def on_header(self, name: bytes, _value: bytes) -> None:
        """See httptools."""
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._delimited = True

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._headed = True
        self._sink.head(self._parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        self._sink.data(self.at_s, data)

    def on_message_complete(self) -> None:
        """See httptools."""
        self.ended = True
        self.keep_alive = self._parser.should_keep_alive()
