"""Where HTTP's versions differ: what a head must have, and answers for clients of HTTP/1.0.

These, old load balancers and health checks, know no chunks (RFC 9112, section 6.1: a server must
not send them any), so that an answer without a length ends with its connection. uvicorn sends
chunks to everybody.
"""

from collections.abc import Sequence

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from models.errors import BadRequestError

LENGTH = b"content-length"


def check_head(names: Sequence[bytes], *, is_old: bool) -> None:
    """What the parser lets pass, and two servers in a row could understand in two ways.

    Args:
        names: Of the headers, in lower case.
        is_old: The client speaks HTTP/1.0.

    Raises:
        BadRequestError: As RFC 9112 has it: for none or several Hosts (section 3.2; HTTP/1.0 needs
            none), and for chunks of HTTP/1.0 (section 6.1).
    """
    hosts = names.count(b"host")
    if hosts > 1 or (hosts == 0 and not is_old):
        raise BadRequestError("a request has one Host header")
    if is_old and b"transfer-encoding" in names:
        raise BadRequestError("HTTP/1.0 has no transfer-encoding")


class Unchunked:
    """ASGI's `send` of one request, in the place of its cycle's own.

    Args:
        cycle: uvicorn's, before its answer has started.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._ends_with_connection = False
        cycle.waiting_for_100_continue = False  # RFC 9110, section 10.1.1: not for such a client

    async def __call__(self, message: Message) -> None:
        """Sends a part of the answer."""
        cycle = self._cycle
        if message["type"] == "http.response.start":
            lengths = (name for name, _ in message.get("headers", ()) if name.lower() == LENGTH)
            if next(lengths, None) is None:
                self._ends_with_connection = True
                cycle.chunked_encoding = cycle.keep_alive = False
        elif self._ends_with_connection and (body := message.get("body", b"")):
            if not cycle.disconnected:
                cycle.transport.write(body)
            message = {**message, "body": b""}
        await self._send(message)  # type: ignore[arg-type]
