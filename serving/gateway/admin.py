"""Passes `/admin/v1` and `/v1/organization` on to the controller, which checks the key itself."""

import io
from collections.abc import Iterable

import aiohttp
from starlette.types import Receive, Scope, Send
from yarl import URL

from models.errors import NotFoundError, UnreachableError
from serving.gateway.bodies import TenantLeftError, WhileTenantStays, read_body
from serving.gateway.body_budget import BodyBudget, Held
from serving.gateway.errors import Header
from serving.gateway.sessions import SessionOwner
from serving.leaders import Controllers

PREFIX = "/admin/v1"
ORGANIZATION = "/v1/organization"
"""OpenAI's routes of usage and costs."""

HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te",
    b"trailer", b"trailers", b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Headers that speak of one connection only (RFC 9110, section 7.6.1)."""

NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"x-request-id"}
NOT_RETURNED = HOP_BY_HOP | {b"server", b"date", b"x-request-id"}

RETRY_AFTER_S = 1.0


class AdminPassage(SessionOwner):
    """ASGI endpoint for everything under PREFIX and ORGANIZATION."""

    def __init__(self, controllers: Controllers, max_body_bytes: int, bodies: BodyBudget) -> None:
        # Shared with the link, which keeps it at the controller that leads.
        self._controllers = controllers
        self._max_body_bytes = max_body_bytes
        self._bodies = bodies
        super().__init__(keepalive_s=2.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request.

        Raises:
            PenstockError: Before the answer has started; the door answers it.
            TenantLeftError: If the caller left before the answer was complete.
        """
        url = self._url(scope)
        held = Held(self._bodies, PREFIX)  # one owner, for whose body it is nobody knows yet
        answered = False
        try:
            body = await read_body(receive, scope["headers"], self._max_body_bytes, held)
            async with WhileTenantStays(receive):
                await self._pass(scope, url, body, send)
                answered = True
        except TenantLeftError:
            if not answered:
                raise
        finally:
            held.release()

    async def _pass(self, scope: Scope, url: URL, body: bytes, send: Send) -> None:
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in end_to_end(scope["headers"], NOT_FORWARDED)
        ]
        headers.append(("x-request-id", scope["state"]["request_id"]))
        started = False
        try:
            async with self.session.request(
                scope["method"],
                url,
                headers=headers,
                data=io.BytesIO(body) if body else None,
                allow_redirects=False,
            ) as response:
                returned = [*end_to_end(response.raw_headers, NOT_RETURNED)]
                start = {"type": "http.response.start", "status": response.status}
                started = True
                await send({**start, "headers": returned})
                async for chunk in response.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (aiohttp.ClientError, OSError) as exc:
            if started:
                raise
            raise UnreachableError(
                "the controller does not answer; models that are awake are served all the same",
                retry_after_s=RETRY_AFTER_S,
            ) from exc
        await send({"type": "http.response.body", "body": b""})

    def _url(self, scope: Scope) -> URL:
        """The controller's URL for a request; a path that climbs out of the prefix has none."""
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        path: str = scope["path"]
        ours = path.startswith((PREFIX + "/", ORGANIZATION + "/"))
        if not ours or {".", ".."} & set(path.split("/")):
            raise NotFoundError(f"there is no {path} here")
        query: bytes = scope["query_string"]
        target = raw + (b"?" + query if query else b"")
        return URL(self._controllers.url + target.decode("latin-1"), encoded=True)


def end_to_end(headers: Iterable[Header], without: frozenset[bytes]) -> list[Header]:
    """The headers that may pass, in lower case."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        token.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for token in value.split(b",")
    }
    return [(name, value) for name, value in lowered if name not in without and name not in named]
