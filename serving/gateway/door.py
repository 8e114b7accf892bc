"""Names each request, and turns whatever goes wrong behind the door into an answer."""

import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import BodyTooLargeError, PenstockError
from serving.gateway.bodies import TenantLeftError
from serving.gateway.body_budget import BodiesFullError
from serving.gateway.connection import TENANT, Tenant
from serving.gateway.errors import Shape, answer_of
from serving.gateway.ids import new_id
from serving.logs import get_logger

SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
"""A tenant's x-request-id that may travel on: printable ASCII without spaces."""

ANTHROPIC_PATH = "/v1/messages"

log = get_logger(__name__)


class Door:
    """Outermost ASGI layer. The id is in `scope["state"]["request_id"]` from here on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                more = scope["state"].get("headers", ())
                headers = [*message.get("headers", ()), *more, (b"x-request-id", request_id)]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except TenantLeftError:
            return
        except PenstockError as error:
            if started:
                raise
            answer = answer_of(error).shaped(shape_of(scope["path"]))
            if isinstance(error, BodyTooLargeError | BodiesFullError) and still_sends(scope):
                await answer.send_and_drain(receive, send_named)
            else:
                await answer.send(send_named)
        except Exception:  # the last resort: nobody may see a traceback
            if started:
                raise
            log.exception("request_crashed", request_id=request_id.decode(), path=scope["path"])
            answer = answer_of(_generic(request_id.decode())).shaped(shape_of(scope["path"]))
            await answer.send(send_named)


def still_sends(scope: Scope) -> bool:
    """Whether a part of the request is still to come; else waiting for it would take long."""
    tenant: Tenant | None = scope.get(TENANT)
    return tenant is None or tenant.is_sending


def shape_of(path: str) -> Shape:
    """The shape of errors that the clients of a path know."""
    anthropic = path == ANTHROPIC_PATH or path.startswith(ANTHROPIC_PATH + "/")
    return Shape.ANTHROPIC if anthropic else Shape.OPENAI


def request_id_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The tenant's x-request-id if it is sane, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return value
    return new_id().encode()


def _generic(request_id: str) -> PenstockError:
    return PenstockError(f"the server had an error; its log knows more under {request_id}")
