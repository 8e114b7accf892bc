"""Asks every caller of an engine for the engine's token, and counts the requests in flight.

Pure ASGI: messages pass through untouched, so a client's disconnect reaches the engine, which then
aborts the generation. Used by name in both ways to start an engine
(`--middleware serving.engine.guard.TokenGuard`).
"""

import hmac
import json
import os
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import UnauthenticatedError
from serving import logs
from serving.engine import pulse, recorder

TOKEN_VARIABLE = "PENSTOCK_ENGINE_TOKEN"  # noqa: S105, the variable's name
"""Environment variable of the engine's process that holds the token."""

IN_FLIGHT_PATH = "/penstock/in_flight"
"""Answered by the guard itself: `{"in_flight": n, "load": what pulse.Sums has, or null}`."""

_log = logs.get_logger("penstock.engine")


class TokenGuard:
    """ASGI middleware; the outermost of the engine's app.

    Args:
        app: The guarded app.
        token: The bearer token; by default the one of the environment.

    Raises:
        ValueError: If there is no token: an engine without a guard must not start.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        token = token or os.environ.get(TOKEN_VARIABLE)
        if not token:
            raise ValueError(f"{TOKEN_VARIABLE} is not set")
        self._app = app
        self._recorder = recorder.of_this_process()
        self._expected = f"Bearer {token}".encode()
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif not hmac.compare_digest(_header(scope, b"authorization"), self._expected):
            await _refuse(scope, send)
        elif scope["type"] == "websocket" or scope["method"] != "POST":
            if scope["path"] == IN_FLIGHT_PATH:
                told = {"in_flight": self.in_flight, "load": pulse.take(scope.get("app"))}
                await _answer(send, 200, told)
            else:
                await self._app(scope, receive, send)
        else:
            await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0
        started_s = time.monotonic()

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        request_id = _header(scope, b"x-request-id").decode("latin-1")
        self.in_flight += 1
        if self._recorder is not None:
            self._recorder.begin(request_id)
        try:
            await self._app(scope, receive, note_status)
        finally:
            self.in_flight -= 1
            if self._recorder is not None:
                self._recorder.end(request_id)
            _log.info(
                "request",
                request_id=request_id or None,
                path=scope["path"],
                status=status,
                duration_s=round(time.monotonic() - started_s, 3),
            )


def _header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    error = UnauthenticatedError("the engine's token is missing or wrong")
    await _answer(send, error.status, error.body())


async def _answer(send: Send, status: int, body: object) -> None:
    payload = json.dumps(body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(payload)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": payload})
