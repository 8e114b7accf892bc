"""The measuring client for threads and greenlets: the same figures as `client`, on a plain socket.

Locust's users run in gevent greenlets. Its FastHttpUser reads a streamed body in pieces of a fixed
size, so that a token is seen only when later ones have filled the piece; here `recv` hands over
what is there, and it is stamped at once. One connection, one request at a time: each user has one.
"""

import socket
import ssl
import time

import orjson

from loadtests.client import Ask, ServerError, broken_off
from loadtests.exchange import MAX_IDLE_S, Address, Collected, ConnectionBroken, Exchange, Sink
from loadtests.measure import Outcome


class BlockingClient:
    """Talks to one server over one connection.

    Args:
        base_url: Without `/v1`.
        timeout_s: Longest time that a request may take from its first byte to its last.
    """

    def __init__(self, base_url: str, api_key: str | None = None, timeout_s: float = 600.0) -> None:
        self._address = Address.of(base_url, api_key)
        self.base_url = self._address.base_url
        self.timeout_s = timeout_s
        self._ssl = ssl.create_default_context() if self._address.tls else None
        self._socket: socket.socket | None = None
        self._idle_since_s = 0.0

    def close(self) -> None:
        """Closes the connection; the next request opens a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def measure(self, ask: Ask, due_s: float | None = None) -> Outcome:
        """Sends a request now; `due_s` is when it should have been sent (monotonic seconds)."""
        ruler = ask.ruler(due_s)
        try:
            ended_s = self._exchange(ask.path, ask.body, ruler, ask.request_id)
        except (OSError, ConnectionBroken) as error:
            return broken_off(ruler, error, self.timeout_s)
        return ruler.end(ended_s)

    def call(self, path: str, body: object = None) -> tuple[int, bytes]:
        """A plain request outside of any measurement: GET, or POST where there is a body.

        Raises:
            ServerError: The server cannot be reached.
        """
        collected = Collected()
        try:
            self._exchange(path, None if body is None else orjson.dumps(body), collected)
        except (OSError, ConnectionBroken) as error:
            raise ServerError(f"{self.base_url} does not answer: {error}") from error
        return collected.status, collected.body

    def _exchange(
        self, path: str, body: bytes | None, sink: Sink, request_id: str | None = None
    ) -> float:
        """Raises: OSError where no connection can be made, TimeoutError, ConnectionBroken."""
        until_s = time.monotonic() + self.timeout_s
        connection = self._connected()
        exchange = Exchange(sink)
        try:
            self._send_and_receive(
                connection, self._address.request(path, body, request_id), exchange, until_s
            )
        except BaseException:
            self.close()
            raise
        if exchange.keep_alive:
            self._idle_since_s = time.monotonic()
        else:
            self.close()
        return exchange.at_s

    def _connected(self) -> socket.socket:
        if self._socket is None or time.monotonic() - self._idle_since_s > MAX_IDLE_S:
            self.close()
            place = (self._address.host, self._address.port)
            plain = socket.create_connection(place, timeout=self.timeout_s)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = (
                plain
                if self._ssl is None
                else self._ssl.wrap_socket(plain, server_hostname=self._address.host)
            )
        return self._socket

    @staticmethod
    def _send_and_receive(
        connection: socket.socket, request: bytes, exchange: Exchange, until_s: float
    ) -> None:
        try:
            connection.settimeout(max(0.001, until_s - time.monotonic()))
            connection.sendall(request)
            while not exchange.ended:
                connection.settimeout(max(0.001, until_s - time.monotonic()))
                data = connection.recv(65536)
                if data:
                    exchange.feed(time.monotonic(), data)
                else:
                    exchange.eof()
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionBroken(str(error)) from error
