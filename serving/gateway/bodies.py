"""Reads request bodies within a cap, and notices callers who leave."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from starlette.types import Receive

from models.errors import BodyTooLargeError
from serving.gateway.body_budget import Held

DRAIN_BYTES = 64 * 2**20
"""How much of a refused body is read and thrown away before the connection is closed."""

DRAIN_S = 15.0
"""How long that may take: fifty at once share one core, and each of them is to get its answer."""


class TenantLeftError(Exception):
    """The caller closed the connection before the answer was complete."""


async def read_body(
    receive: Receive, headers: Sequence[tuple[bytes, bytes]], cap: int, held: Held
) -> bytes:
    """The whole body of a request.

    Args:
        receive: The request's.
        headers: The request's.
        cap: Largest body in bytes; reading stops as soon as it is passed.
        held: Grows to the body's size; the caller releases it.

    Raises:
        BodyTooLargeError: Before anything is read where Content-Length tells.
        BodiesFullError: If there is no room for it now; before anything is read, as above.
        TenantLeftError: If the caller left before the end.
    """
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            if int(value) > cap:
                raise _too_large(cap)
            held.grow_to(int(value))
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        whole: bytes = message.get("body", b"")
        if len(whole) > cap:
            raise _too_large(cap)
        return whole
    parts: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > cap:
            raise _too_large(cap)
        held.grow_to(size)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()
    raise TenantLeftError


async def drain(receive: Receive) -> None:
    """Throws away what a caller still sends, up to DRAIN_BYTES and DRAIN_S."""
    size = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            while size < DRAIN_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


class WhileTenantStays:
    """A block that is cancelled, and raises TenantLeftError, when the caller disconnects.

    Only for requests whose body has been read: what comes after it is the disconnect.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False
        self._inside = False
        self._task: asyncio.Task[object] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._inside = True
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside = False
        if self._watcher is not None:
            self._watcher.cancel()
        if self._left and self._task is not None:
            # As asyncio.timeout does: only our own cancellation becomes an error of ours.
            still_wanted = self._task.uncancel() <= 0
            if still_wanted and isinstance(error, asyncio.CancelledError):
                raise TenantLeftError from error

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._inside and self._task is not None:
            self._left = True
            self._task.cancel()


def _too_large(cap: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {cap / 2**20:g} MiB")
