"""The pooled HTTP client towards the engines; aiohttp's failures end here."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from serving.gateway.sessions import SessionOwner
from serving.protocol import EndpointRoute

KEEPALIVE_S = 2.0
"""vLLM's server closes idle connections after 5 s; ours go well before, so that no request
is written into one that is just being closed and an engine is taken for dead."""

IN_MEMORY_BYTES = 2**20
"""aiohttp wants larger bodies as a stream."""

ERROR_BODY_BYTES = 2**20
"""As much of an engine's error is read."""


class EngineGoneError(Exception):
    """The engine could not be reached: the request never got there."""


class EngineBrokeError(Exception):
    """The engine broke off while it had the request."""


class EngineReply:
    """An engine's answer, whose body is still to be read."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.headers.get("Content-Type", "application/json")
        self.streams = self.content_type.startswith("text/event-stream")

    async def next_bytes(self) -> bytes:
        """What has arrived since the last call, at least one byte; empty at the end.

        Raises:
            EngineBrokeError: If the answer is cut off.
        """
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as exc:
            raise EngineBrokeError(f"{type(exc).__name__}: {exc}") from exc

    async def whole_body(self) -> bytes:
        """The rest of the body.

        Raises:
            EngineBrokeError: If the answer is cut off.
        """
        parts: list[bytes] = []
        while part := await self.next_bytes():
            parts.append(part)
        return b"".join(parts)

    async def error_body(self) -> bytes:
        """The body of an error, cut at ERROR_BODY_BYTES; empty if the engine broke off."""
        parts: list[bytes] = []
        size = 0
        try:
            while size < ERROR_BODY_BYTES and (part := await self.next_bytes()):
                parts.append(part)
                size += len(part)
        except EngineBrokeError:
            return b""
        return b"".join(parts)


class EngineClient(SessionOwner):
    """Sends requests to engines over pooled connections."""

    def __init__(self) -> None:
        super().__init__(keepalive_s=KEEPALIVE_S)
        self._urls: dict[tuple[str, str], URL] = {}

    @asynccontextmanager
    async def post(
        self,
        route: EndpointRoute,
        path: str,
        body: bytes,
        request_id: str,
        content_type: str = "application/json",
    ) -> AsyncIterator[EngineReply]:
        """Sends a request; leaving the block early closes the connection, and so aborts it.

        Raises:
            EngineGoneError: If no connection could be made.
            EngineBrokeError: If the engine broke off before it answered.
        """
        headers = {
            "Authorization": f"Bearer {route.token}",
            "Content-Type": content_type,
            "X-Request-Id": request_id,
        }
        data = body if len(body) <= IN_MEMORY_BYTES else io.BytesIO(body)
        try:
            response = await self.session.post(
                self._url(route.url, path), data=data, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            raise EngineGoneError(f"{type(exc).__name__}: {exc}") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise EngineBrokeError(f"{type(exc).__name__}: {exc}") from exc
        try:
            yield EngineReply(response)
        finally:
            # A response that was read to its end has given its connection back already.
            response.close()

    def _url(self, base: str, path: str) -> URL:
        url = self._urls.get((base, path))
        if url is None:
            if len(self._urls) > 10_000:  # engines come and go for weeks
                self._urls.clear()
            url = self._urls[base, path] = URL(base.rstrip("/") + path, encoded=True)
        return url
