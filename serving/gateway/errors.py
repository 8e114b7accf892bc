"""Turns every error into an answer of OpenAI's shape; the one place in the gateway that does."""

import math
import re
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus

import orjson
from starlette.types import Receive, Send

from models.errors import (
    BadRequestError,
    MethodNotAllowedError,
    NotFoundError,
    PenstockError,
    UnauthenticatedError,
    UnavailableError,
    UpstreamError,
)
from serving.gateway import fields
from serving.gateway.bodies import drain

Header = tuple[bytes, bytes]

MAX_MESSAGE_CHARS = 4000
"""Longer messages of an engine are cut: one of vLLM's can echo a whole body."""

OUR_FAULT = frozenset({401, 403, 404, 405, 407, 408, 421})
"""An engine's answers that only a mistake of the platform's can cause: the tenant sees 502."""

NAMED_FIRST = re.compile(r"([a-z_]+) (?:must|cannot|is set|contains)\b")
"""How vLLM's messages begin that name a field in words only: `min_p must be in [0, 1]`."""

CONTEXT_OVERFLOW = ("maximum context length", "maximum model length")
"""Parts of vLLM's messages about a prompt that does not fit."""

GRAMMAR_TOO_SLOW = "takes the engine too long to tell which token may follow"
"""Part of our engines' message about a grammar; see `serving.engine.grammar_budget`."""

NO_ROUTE = "Not Found"
"""What vLLM's server says where it has no such route for its model."""

ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
    503: "overloaded_error",
}  # fmt: skip


class Shape(Enum):
    """Whose clients call a route, and so what its errors look like."""

    OPENAI = auto()
    ANTHROPIC = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: what an error looks like on the wire."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = ()

    def shaped(self, shape: Shape) -> "Answer":
        """An error in the shape that a route's clients know; ours is OpenAI's, and OpenAI's
        fields stay in Anthropic's.
        """
        if shape is Shape.OPENAI or self.status < 400:
            return self
        error = orjson.loads(self.body)["error"]
        error["type"] = ANTHROPIC_TYPES.get(
            self.status, "api_error" if self.status >= 500 else "invalid_request_error"
        )
        body = orjson.dumps({"type": "error", "error": error})
        return Answer(self.status, body, self.headers)

    async def send(self, send: Send) -> None:
        """Sends it as an ASGI response."""
        await self._send_all_but_the_end(send)
        await send({"type": "http.response.body", "body": b""})

    async def send_and_drain(self, receive: Receive, send: Send) -> None:
        """Sends it while the caller may still be sending, then closes the connection.

        Many clients read no answer before they have written their whole body, and lose it when
        the connection is reset under them. So what still comes is read and thrown away for a
        while before the end.
        """
        await self._send_all_but_the_end(send, (b"connection", b"close"))
        await drain(receive)
        await send({"type": "http.response.body", "body": b""})

    async def _send_all_but_the_end(self, send: Send, *extra: Header) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            *self.headers,
            *extra,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})


def answer_of(error: PenstockError) -> Answer:
    """The answer to a request that ended in `error`."""
    headers: list[Header] = []
    if isinstance(error, UnauthenticatedError):
        headers.append((b"www-authenticate", b'Bearer realm="penstock"'))
    retry_after_s = error.retry_after_s
    if retry_after_s is None and isinstance(error, UnavailableError):
        retry_after_s = 1.0
    if retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(retry_after_s))).encode()))
    return Answer(error.status, orjson.dumps(error.body()), tuple(headers))


def answer_of_http(status: int, method: str, path: str, allow: str | None) -> Answer:
    """The answer where the router found no route, or none for this method."""
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        answer = answer_of(MethodNotAllowedError(f"{method} is not allowed on {path}"))
        headers = ((b"allow", allow.encode("latin-1")),) if allow else ()
        return Answer(answer.status, answer.body, headers)
    if status == HTTPStatus.NOT_FOUND:
        return answer_of(NotFoundError(f"there is no {path} here"))
    return answer_of(BadRequestError(HTTPStatus(status).phrase.lower()))


def answer_of_engine(status: int, body: bytes) -> Answer:
    """An engine's refusal (4xx), made OpenAI's: its message and param, our type and code."""
    message, param = _engine_error(body)
    if status == HTTPStatus.NOT_FOUND and message == NO_ROUTE:
        return answer_of(BadRequestError("this model does not serve this route", param="model"))
    if status in OUR_FAULT or status < 400:
        return answer_of(UpstreamError("the engine refused a request that the gateway had let in"))
    if message is None:
        message = HTTPStatus(status).phrase if status in set(HTTPStatus) else f"status {status}"
    if param is None and (named := NAMED_FIRST.match(message)) and named[1] in fields.SAMPLING:
        param = named[1]
    code = "grammar_too_complex" if GRAMMAR_TOO_SLOW in message else None
    if any(part in message for part in CONTEXT_OVERFLOW):
        code = "context_length_exceeded"
    if status == HTTPStatus.NOT_IMPLEMENTED:
        status = int(HTTPStatus.BAD_REQUEST)  # the request asks for what the model cannot do
    error = {
        "message": message[:MAX_MESSAGE_CHARS],
        "type": "rate_limit_error" if status == 429 else "invalid_request_error",
        "param": param,
        "code": code,
    }
    return Answer(status, orjson.dumps({"error": error}))


def sse_event(answer: Answer, shape: Shape = Shape.OPENAI) -> bytes:
    """The answer as the server-sent event that ends a stream which broke after its first byte.

    It begins with an empty line, which ends whatever event came before it.
    """
    name = b"event: error\n" if shape is Shape.ANTHROPIC else b""
    return b"\n" + name + b"data: " + answer.shaped(shape).body + b"\n\n"


def _engine_error(body: bytes) -> tuple[str | None, str | None]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, None
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if isinstance(error, dict) and set(error) == {"detail"}:
        error = error["detail"]  # FastAPI's own
    if not isinstance(error, dict):
        return (error, None) if isinstance(error, str) else (None, None)
    message, param = error.get("message"), error.get("param")
    return (
        message if isinstance(message, str) and message else None,
        # vLLM names a field of a body that it cannot parse `body.top_p`.
        param.removeprefix("body.") if isinstance(param, str) else None,
    )
