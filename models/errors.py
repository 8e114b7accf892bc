"""The errors of Penstock, each with the status, type and code that a tenant sees.

    PenstockError                     500 server_error
    ├── BadRequestError               400 invalid_request_error
    │   ├── ManifestError                 a manifest that cannot be accepted
    │   └── SourceError                   weights that cannot be had, or are broken
    ├── UnauthenticatedError          401 invalid_request_error  invalid_api_key
    ├── ForbiddenError                403 invalid_request_error
    ├── NotFoundError                 404 invalid_request_error
    │   └── ModelNotFoundError                                   model_not_found
    ├── MethodNotAllowedError         405 invalid_request_error
    ├── ConflictError                 409 invalid_request_error
    ├── BodyTooLargeError             413 invalid_request_error
    ├── RateLimitedError              429 rate_limit_error
    │   └── QueueFullError                                       queue_full
    ├── UpstreamError                 502 server_error           an engine broke off
    └── UnavailableError              503 server_error
        ├── DeadlineError                                        deadline_exceeded
        ├── ModelFailedError                                     model_failed
        └── UnreachableError              a part of the platform does not answer

`str(error)` is safe to show to a tenant. `hint` is for the operator's terminal: what to do next.
One place in the gateway turns an error into a body, one place in the CLI into an exit code.
"""

from typing import ClassVar


class PenstockError(Exception):
    """Root of all errors that Penstock raises on purpose.

    Args:
        message: One sentence, safe to show to a tenant.
        param: The field of the request or manifest that is at fault, dotted.
        hint: What the operator can do about it.
        retry_after_s: When another try makes sense, for statuses that carry Retry-After.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        hint: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.hint = hint
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, dict[str, str | None]]:
        """The error in OpenAI's shape."""
        return {
            "error": {
                "message": str(self),
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class BadRequestError(PenstockError):
    """The request can never succeed as it stands."""

    status = 400
    type = "invalid_request_error"
    exit_code = 2


class ManifestError(BadRequestError):
    """A manifest that names an unknown field, a bad value or an impossible resource."""

    code = "invalid_manifest"


class SourceError(BadRequestError):
    """A model source that cannot be reached, or holds no servable weights."""

    code = "invalid_source"


class UnauthenticatedError(PenstockError):
    """No key, or a key that nobody was given."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    exit_code = 3


class ForbiddenError(PenstockError):
    """A valid key that may not do this."""

    status = 403
    type = "invalid_request_error"
    code = "forbidden"
    exit_code = 3


class NotFoundError(PenstockError):
    """The named thing does not exist."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"
    exit_code = 4


class ModelNotFoundError(NotFoundError):
    """No model of this name is deployed (a model that sleeps is found)."""

    code = "model_not_found"


class MethodNotAllowedError(PenstockError):
    """The path exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class ConflictError(PenstockError):
    """Somebody else changed the same thing at the same time."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"
    exit_code = 5


class BodyTooLargeError(PenstockError):
    """The request's body passes the cap of its route."""

    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class RateLimitedError(PenstockError):
    """A limit of the tenant is used up."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QueueFullError(RateLimitedError):
    """More requests wait for the model than its queue may hold."""

    code = "queue_full"


class UpstreamError(PenstockError):
    """An engine broke off, and no other could take over."""

    status = 502
    code = "engine_error"


class UnavailableError(PenstockError):
    """Not now; later."""

    status = 503
    code = "unavailable"
    exit_code = 6


class DeadlineError(UnavailableError):
    """No engine was free before the request's deadline."""

    code = "deadline_exceeded"


class ModelFailedError(UnavailableError):
    """The model's engine cannot be started; an operator has to look."""

    code = "model_failed"


class UnreachableError(UnavailableError):
    """A part of the platform does not answer."""

    code = "unreachable"
