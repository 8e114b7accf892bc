"""HTTP as all handlers need it: errors in OpenAI's shape, capped bodies, long polls."""

import asyncio
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from models.errors import (
    BadRequestError,
    BodyTooLargeError,
    MethodNotAllowedError,
    NotFoundError,
    PenstockError,
)
from serving.controller.changes import Changes
from serving.logs import get_logger
from serving.protocol import POLL_S

log = get_logger(__name__)


def install_error_handlers(app: FastAPI) -> None:
    """Has every failure answered with `{"error": {message, type, param, code}}`."""

    @app.exception_handler(PenstockError)
    async def _ours(_request: Request, exc: PenstockError) -> JSONResponse:
        return _answer(exc)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, exc: RequestValidationError) -> JSONResponse:
        fault = exc.errors()[0]
        param = str(fault["loc"][-1])
        return _answer(BadRequestError(f"{param}: {fault['msg']}", param=param))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, exc: HTTPException) -> JSONResponse:
        match exc.status_code:
            case 404:
                error: PenstockError = NotFoundError(f"there is nothing at {request.url.path}")
            case 405:
                error = MethodNotAllowedError(f"{request.url.path} takes no {request.method}")
            case status if status < 500:
                error = BadRequestError(str(exc.detail))
            case _:
                error = PenstockError("the controller failed to answer")
        return _answer(error, dict(exc.headers or {}))

    @app.exception_handler(Exception)
    async def _unforeseen(_request: Request, _exc: Exception) -> JSONResponse:
        # The server logs the exception; it may name things that no caller should see.
        return _answer(PenstockError("the controller failed to answer; its log says why"))


def _answer(exc: PenstockError, headers: dict[str, str] | None = None) -> JSONResponse:
    headers = dict(headers or {})
    if exc.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(exc.retry_after_s)))
    if exc.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(exc.body(), exc.status, headers)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The request's body.

    Raises:
        BodyTooLargeError: As soon as it is known to pass `max_bytes`; the rest is not read.
    """
    error = BodyTooLargeError(f"the body is larger than {max_bytes} bytes")
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > max_bytes:
        raise error
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise error
    return bytes(body)


async def long_poll(
    request: Request, changes: Changes, is_due: Callable[[], bool], timeout_s: float = POLL_S
) -> bool:
    """Waits until an answer is due, or for `timeout_s`; False if the caller hung up before."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout_s
    hung_up = asyncio.create_task(_hung_up(request))
    try:
        while not is_due() and not hung_up.done() and loop.time() < ends:
            woken = asyncio.create_task(changes.woken(ends - loop.time()))
            await asyncio.wait({woken, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            woken.cancel()
        return is_due() or not hung_up.done()
    finally:
        hung_up.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
