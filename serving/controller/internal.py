"""`/internal/v1`: what gateways and hosts say to the controller; see `serving.protocol`."""

import hmac
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from models.errors import BadRequestError, NotFoundError, UnauthenticatedError
from models.faults import faults_of
from serving.controller.context import Controller, controller_of
from serving.controller.http import long_poll, read_body
from serving.controller.moment import now
from serving.protocol import (
    DemandReport,
    HostAdmission,
    HostRegistration,
    HostReport,
    Message,
)
from serving.shares import ShareReport

MAX_BODY_BYTES = 16 * 2**20

MessageT = TypeVar("MessageT", bound=Message)
After = Annotated[int, Query(description="The caller's version; 0 for none.")]


def require_internal_token(request: Request) -> None:
    """Refuses whoever does not show the internal token.

    Raises:
        UnauthenticatedError: Without the token, compared in constant time.
    """
    expected = controller_of(request).settings.internal_token.get_secret_value()
    given = request.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {expected}".encode()):
        raise UnauthenticatedError(
            "the internal token is wrong", hint="PENSTOCK_INTERNAL_TOKEN differs between parts"
        )


router = APIRouter(
    prefix="/internal/v1",
    include_in_schema=False,
    dependencies=[Depends(require_internal_token)],
)
Here = Annotated[Controller, Depends(controller_of)]


@router.get("/routes")
async def routes(request: Request, here: Here, after: After = 0) -> Response:
    """Long poll: what changed in the routing table; held back until the controller has settled."""
    table = here.loop.routes

    def is_due() -> bool:
        return here.closing or (here.loop.settled and table.changes.version != after)

    await long_poll(request, table.changes, is_due)
    return _json(table.since(after if not here.closing else table.changes.version))


@router.get("/identities")
async def identities(request: Request, here: Here, after: After = 0) -> Response:
    """Long poll: all keys, when they changed."""
    keys = here.identities

    def is_due() -> bool:
        return here.closing or keys.changes.version != after

    await long_poll(request, keys.changes, is_due)
    return _json(keys.since(after))


@router.post("/demand")
async def demand(request: Request, here: Here) -> Response:
    """A gateway reports its demand and gets its leases."""
    return _json(here.loop.hear(await _message(request, DemandReport)))


@router.post("/limits")
async def limits(request: Request, here: Here) -> Response:
    """A gateway reports what it used of limits and gets its shares of them."""
    return _json(here.shares.report(await _message(request, ShareReport)))


@router.post("/hosts/register")
async def register(request: Request, here: Here) -> Response:
    """A host introduces itself."""
    here.loop.register(await _message(request, HostRegistration))
    return _json(HostAdmission(known=True))


@router.get("/hosts/{host_id}/assignment")
async def assignment(
    host_id: str, request: Request, here: Here, after: After = 0, prefetch: str | None = None
) -> Response:
    """Long poll: what the host shall run, and fetch where its list is not `prefetch`."""
    host = here.loop.fleet.find(host_id)
    if host is None:
        raise NotFoundError(f"host {host_id} is not registered")

    def is_due() -> bool:
        gone = here.loop.fleet.find(host_id) is not host
        return here.closing or gone or host.changes.version != after

    host.poll_begins()
    answered = False
    try:
        answered = await long_poll(request, host.changes, is_due)
    finally:
        host.poll_ends(now().s, dropped=not answered)
    if here.loop.fleet.find(host_id) is not host:
        raise NotFoundError(f"host {host_id} is not registered")
    return _json(host.assignment_for(prefetch))


@router.post("/hosts/{host_id}/report")
async def report(host_id: str, request: Request, here: Here) -> Response:
    """A host reports what it sees."""
    seen = await _message(request, HostReport)
    if (host := here.loop.fleet.find(host_id)) is not None:
        host.fetches, host.gpus = seen.fetches, seen.gpus
    return _json(HostAdmission(known=here.loop.report(host_id, seen.engine)))


async def _message(request: Request, kind: type[MessageT]) -> MessageT:
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        return kind.model_validate_json(body)
    except ValidationError as exc:
        fault = faults_of(exc)[0]
        param = fault.field or None
        raise BadRequestError(f"{kind.__name__}: {fault.reason}", param=param) from exc


def _json(message: Message) -> Response:
    return Response(message.model_dump_json(), media_type="application/json")
