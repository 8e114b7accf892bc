"""The HTTP session that each of the gateway's clients owns, open for as long as the client is."""

from types import TracebackType
from typing import Self

import aiohttp

CONNECT_TIMEOUT_S = 3.0


class SessionOwner:
    """A client with a pooled session of its own; to be used inside `async with`.

    Args:
        keepalive_s: How long an idle connection is kept.
        connect_timeout_s: How long a connection may take to come about.
    """

    def __init__(self, *, keepalive_s: float, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._timings_s = (keepalive_s, connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The open session."""
        if self._session is None:
            raise RuntimeError(f"{type(self).__name__} is used before it was opened")
        return self._session

    async def __aenter__(self) -> Self:
        self._session = _new_session(*self._timings_s)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()


def _new_session(keepalive_s: float, connect_timeout_s: float) -> aiohttp.ClientSession:
    """A session that changes nothing on the way and knows no limit of its own but to connect."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=keepalive_s),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        trust_env=False,
    )
