"""One connection to a Redis: commands go out together, answers come back in their order.

No more of the protocol (RESP 2) than limits need: an answer is a word, an error, a number or a
string. A client library does the same for some 200 us of CPU a command, most of it between its
layers; a check of limits is one command.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, cast
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_PORT = 6379
NO_CERTIFICATE = ("none", "optional")


class RedisLinkError(Exception):
    """Redis was not reached, broke off, or answered with an error."""


class NoScriptError(RedisLinkError):
    """Redis does not know the script by its digest: it was restarted."""


Answer = bytes | None | RedisLinkError
Then = Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis listens, and who we are there."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str | None = None
    """Of a Unix socket."""
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, url: str) -> Self:
        """Reads `redis://[user:password@]host:port/0`, `rediss://` for TLS, and
        `unix:///path?db=0`.

        The query may say `db`, and for TLS `ssl_ca_certs` (a file) and `ssl_cert_reqs=none`.

        Raises:
            ValueError: If the URL says something else. Its text names no password.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("a Redis URL begins with redis://, rediss:// or unix://")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        is_unix = parts.scheme == "unix"
        database = query.pop("db", "" if is_unix else parts.path.strip("/")) or "0"
        if not database.isdecimal():
            raise ValueError("the database of a Redis URL is a number")
        try:
            port = parts.port or DEFAULT_PORT
        except ValueError:  # its text may be a part of the password
            raise ValueError("the port of a Redis URL is a number; quote / in passwords") from None
        tls = _tls(query) if parts.scheme == "rediss" else None
        if query:
            raise ValueError(f"unknown in a Redis URL: {', '.join(sorted(query))}")
        return cls(
            host=parts.hostname or "localhost",
            port=port,
            path=unquote(parts.path) if is_unix else None,
            database=int(database),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=tls,
        )


def _tls(query: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=query.pop("ssl_ca_certs", None))
    if query.pop("ssl_cert_reqs", "required") in NO_CERTIFICATE:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def command(*words: bytes) -> bytes:
    """A command as it goes over the wire."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


class RedisLink(asyncio.Protocol):
    """To be made by `connect`; it is not mended when it breaks."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._awaited: deque[Then] = deque()
        self._rest = b""
        self.closed = False

    def ask(self, words: bytes, then: Then) -> None:
        """Sends a command; `then` gets its answer, within the callback that brings it."""
        if self.closed or self._transport is None:
            then(RedisLinkError("the connection is closed"))
            return
        self._awaited.append(then)
        self._transport.write(words)

    async def call(self, *words: bytes) -> bytes | None:
        """Sends a command and waits for its answer.

        Raises:
            RedisLinkError: If the answer is an error, or none.
        """
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def then(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        self.ask(command(*words), then)
        answer = await answered
        if isinstance(answer, RedisLinkError):
            raise answer
        return answer

    def close(self, reason: str = "the connection was closed") -> None:
        """Ends the connection; whoever waits for an answer gets an error."""
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    # --- from the event loop ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        if self.closed:
            return
        self._rest = data = self._rest + data if self._rest else data
        start = 0
        try:
            while start < len(data) and (found := _read(data, start)) is not None:
                answer, start = found
                self._awaited.popleft()(answer)
        except (IndexError, ValueError):
            self.close("it speaks another protocol")
        self._rest = data[start:]

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._end(f"the connection broke: {exc}" if exc else "Redis closed the connection")

    def _end(self, reason: str) -> None:
        self.closed = True
        while self._awaited:
            self._awaited.popleft()(RedisLinkError(reason))


def _read(data: bytes, start: int) -> tuple[Answer, int] | None:
    """The answer that begins at `start` and where it ends; None where the rest is still to come.

    Raises:
        ValueError: If it is none.
    """
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, line, after = data[start], data[start + 1 : line_end], line_end + 2
    if kind == 0x24:  # $
        size = int(line)
        if size < 0:
            return None, after
        if len(data) < after + size + 2:
            return None
        return data[after : after + size], after + size + 2
    if kind in b"+:":
        return line, after
    if kind == 0x2D:  # -
        text = line.decode("utf-8", "replace")
        return (NoScriptError if text.startswith("NOSCRIPT") else RedisLinkError)(text), after
    raise ValueError("not an answer that we expect")


async def connect(address: RedisAddress) -> RedisLink:
    """A connection that is ready for commands.

    Raises:
        OSError: If nobody listens there.
        RedisLinkError: If Redis does not let us in.
    """
    loop = asyncio.get_running_loop()
    host = address.host if address.tls is not None else None
    if address.path is not None:
        _, link = await loop.create_unix_connection(RedisLink, address.path)
    else:
        _, link = await loop.create_connection(
            RedisLink, address.host, address.port, ssl=address.tls, server_hostname=host
        )
    try:
        if address.password is not None:
            who = () if address.username is None else (address.username.encode(),)
            await link.call(b"AUTH", *who, address.password.encode())
        if address.database:
            await link.call(b"SELECT", b"%d" % address.database)
    except BaseException:
        link.close()
        raise
    return link
