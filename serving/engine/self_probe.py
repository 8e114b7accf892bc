"""An engine's probe of itself: one token, asked for over its own socket, as a gateway would.

The engine runs it the moment it serves, so that no other process has to connect, be scheduled and
parse first; what is proven is the same: socket, server, guard, app and core answer together.
"""

import asyncio
import json

from models.errors import UpstreamError

PROBE_TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 1 << 20


async def probe_self(host: str, port: int, token: str, path: str, body: object) -> None:
    """Returns when the engine that listens there has answered.

    Args:
        host: The engine's own address.
        port: Its port.
        token: Its bearer token.
        path: Route of the request.
        body: The request, as JSON.

    Raises:
        UpstreamError: If it does not answer in time, or not with success.
    """
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
        "Connection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(head.encode() + payload)
                answer = await reader.read(MAX_ANSWER_BYTES)
            finally:
                writer.close()
    except (OSError, TimeoutError) as exc:
        raise UpstreamError(f"the engine did not answer its probe: {exc!r}") from exc
    status = answer.partition(b"\r\n")[0].split(b" ")[1:2]
    if status != [b"200"]:
        said = status[0].decode("latin-1") if status else "nothing"
        raise UpstreamError(f"the engine answered its probe with {said}")
