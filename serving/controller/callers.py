"""Who calls the admin API: the check that stands before each of its routes."""

import time
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from models.errors import UnauthenticatedError
from serving.controller import access
from serving.controller.audit import Act
from serving.controller.context import Controller, controller_of
from serving.credentials import key_of
from serving.identities import KeyRecord

Here = Annotated[Controller, Depends(controller_of)]
Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Depends(HTTPBearer(auto_error=False, description="A key of the platform's own people.")),
]


def require_permission(request: Request, here: Here, _bearer: Bearer) -> KeyRecord:
    """Refuses whoever shows no key, or one whose role may not call this route.

    Raises:
        UnauthenticatedError: Without one valid key in the Authorization header.
        ForbiddenError: If the key's role may not do this.
    """
    try:
        key = key_of(request.headers.raw, request.url.query.encode())
    except UnauthenticatedError as exc:
        raise UnauthenticatedError(str(exc), hint="set PENSTOCK_ADMIN_KEY") from exc
    caller = here.identities.authenticate(key, time.time())
    access.require(caller, request.method, request.scope["route"].path)
    return caller


Caller = Annotated[KeyRecord, Depends(require_permission)]


def act_of(request: Request, caller: Caller) -> Act:
    """The deed that a request does, for the audit log."""
    return Act(caller, time.time(), request.headers.get("x-request-id", ""))


Deed = Annotated[Act, Depends(act_of)]
