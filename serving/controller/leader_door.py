"""The door of a controller beside others: a leader's is open, a standby's to a few readers.

What a standby answers comes from the database alone. All else is 503, with the leader's address
for whoever shows the internal token. A leader whose lease has run out is no better than a standby:
it is asked again before the first byte of an answer leaves.
"""

import hmac
import re
from typing import Protocol

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.controller.leader_fence import NotLeaderError
from serving.leaders import LEADER_HEADER

OPEN = frozenset({"/health", "/healthz", "/metrics"})
"""Answered by whoever lives."""

FROM_THE_DATABASE = re.compile(
    r"/admin/v1/(organizations|projects|service-accounts|keys(/[^/]+)?|limits|prices|audit|events"
    r"|usage|usage/export|openapi\.json)"
    r"|/v1/organization/(costs|usage/completions)"
)
"""Reads that need nothing of what the loop knows."""

RETRY_AFTER_S = 1


class Standing(Protocol):
    """What the door asks before each request."""

    @property
    def leader_url(self) -> str | None:
        """Where the leader is, as far as this controller knows."""
        ...

    def leads(self) -> bool:
        """Whether this controller may act."""
        ...


class LeaderDoor:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, standing: Standing, token: str) -> None:
        self._app = app
        self._standing = standing
        self._bearer = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, or says who leads."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
        elif self._standing.leads():
            await self._app(scope, receive, self._while_leading(scope, receive, send))
        elif scope["method"] == "GET" and FROM_THE_DATABASE.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
        else:
            await self._refusal(scope)(scope, receive, send)

    def _while_leading(self, scope: Scope, receive: Receive, send: Send) -> Send:
        """Sends an answer if its sender still leads when the answer begins, else a refusal."""
        refused = False

        async def guarded(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and not self._standing.leads():
                refused = True
                await self._refusal(scope)(scope, receive, send)
            if not refused:
                await send(message)

        return guarded

    def _refusal(self, scope: Scope) -> JSONResponse:
        exc = NotLeaderError("this controller is a standby; another one leads, or soon will")
        # Closed, so that the next connection to a name of all controllers may reach the leader.
        headers = {"retry-after": str(RETRY_AFTER_S), "connection": "close"}
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self._bearer):
            headers[LEADER_HEADER] = self._standing.leader_url or ""
        return JSONResponse(exc.body(), exc.status, headers)
