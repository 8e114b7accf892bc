"""Calls the admin API; the only place of the command line that knows its paths."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from models.errors import (
    BadRequestError,
    BodyTooLargeError,
    ConflictError,
    ForbiddenError,
    ManifestError,
    ModelNotFoundError,
    NotFoundError,
    PenstockError,
    SourceError,
    UnauthenticatedError,
    UnavailableError,
    UnreachableError,
    UpstreamError,
)
from models.manifest import Manifest
from serving.rollout import RolloutView
from serving.scaling import CapacityView, DemandView, ScalingChange
from serving.settings import ClientSettings
from serving.views import (
    Applied,
    DecisionView,
    EngineView,
    EventView,
    HostView,
    Items,
    ModelView,
    PlatformView,
    RevisionView,
    StartView,
)

TIMEOUT_S = 30.0
FIRST_ERRORS: tuple[type[PenstockError], ...] = (
    ManifestError, SourceError, ModelNotFoundError,
    BadRequestError, UnauthenticatedError, ForbiddenError, NotFoundError, ConflictError,
    BodyTooLargeError, UpstreamError, UnavailableError,
)  # fmt: skip
"""What an answer is turned back into: the first class of its code, else of its status."""

ResourceT = TypeVar("ResourceT", bound=BaseModel)


class AdminClient:
    """The operator's view of one platform; blocking. Its every failure is a PenstockError."""

    def __init__(self, url: str, admin_key: str) -> None:
        self._url = url
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/admin/v1",
            headers={"Authorization": f"Bearer {admin_key}"},
            timeout=TIMEOUT_S,
            trust_env=needs_proxy(url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def status(self) -> PlatformView:
        """The platform at a glance."""
        return self._read("/status", PlatformView)

    def models(self) -> list[ModelView]:
        """All models that are deployed."""
        return self._read("/models", Items[ModelView]).items

    def model(self, name: str) -> ModelView:
        """One model."""
        return self._read(f"/models/{name}", ModelView)

    def revisions(self, name: str) -> list[RevisionView]:
        """All revisions of a model."""
        return self._read(f"/models/{name}/revisions", Items[RevisionView]).items

    def starts(self, name: str) -> list[StartView]:
        """The last starts of a model's engines, newest last."""
        return self._read(f"/models/{name}/starts", Items[StartView]).items

    def decisions(self, name: str, limit: int = 100) -> list[DecisionView]:
        """The last changes of a model's target, newest last."""
        parameters = {"limit": str(limit)}
        return self._read(f"/models/{name}/decisions", Items[DecisionView], parameters).items

    def scale(self, name: str, change: ScalingChange) -> Applied:
        """Changes a model's bounds, or pauses its autoscaler."""
        body = change.model_dump_json(exclude_none=True)
        return _parse(self._send("PATCH", f"/models/{name}/scaling", body), Applied)

    def rollout(self, name: str) -> RolloutView:
        """How far the current revision of a model has got."""
        return self._read(f"/models/{name}/rollout", RolloutView)

    def undo(self, name: str, to: int | None) -> Applied:
        """Deploys an earlier revision again."""
        parameters = {} if to is None else {"to": str(to)}
        answer = self._send("POST", f"/models/{name}/rollout/undo", parameters=parameters)
        return _parse(answer, Applied)

    def hold_rollout(self, name: str, verb: str) -> RolloutView:
        """Pauses or resumes a canary."""
        return _parse(self._send("POST", f"/models/{name}/rollout/{verb}"), RolloutView)

    def capacity(self, name: str) -> CapacityView:
        """What one engine of a model can do."""
        return self._read(f"/models/{name}/capacity", CapacityView)

    def demand(self, name: str, hours: float) -> DemandView:
        """What came in for a model within the last hours."""
        return self._read(f"/models/{name}/demand", DemandView, {"hours": str(hours)})

    def engines(self) -> list[EngineView]:
        """All engines."""
        return self._read("/engines", Items[EngineView]).items

    def hosts(self) -> list[HostView]:
        """All hosts."""
        return self._read("/hosts", Items[HostView]).items

    def events(self, limit: int, model: str | None = None) -> list[EventView]:
        """The last events, newest last."""
        parameters = {"limit": str(limit)} | ({"model": model} if model else {})
        return self._read("/events", Items[EventView], parameters).items

    def engine_log(self, engine_id: str, tail: int) -> str:
        """The last lines of an engine's log."""
        return self._send("GET", f"/engines/{engine_id}/log", parameters={"tail": str(tail)}).text

    def apply(
        self, manifest: Manifest, *, if_revision: int | None = None, dry_run: bool = False
    ) -> Applied:
        """Deploys a manifest.

        Args:
            manifest: The model.
            if_revision: The current revision that the caller has seen, 0 for none; else refused.
            dry_run: Change nothing, only tell.
        """
        body = manifest.model_dump_json(exclude_unset=True)
        parameters = {} if if_revision is None else {"if_revision": str(if_revision)}
        if dry_run:
            parameters["dry_run"] = "true"
        return _parse(self._send("POST", "/models", body, parameters), Applied)

    def delete(self, name: str) -> None:
        """Deletes a model with all its engines."""
        self._send("DELETE", f"/models/{name}")

    def read(
        self, path: str, resource: type[ResourceT], parameters: dict[str, str] | None = None
    ) -> ResourceT:
        """A resource, for modules that know further paths."""
        return self._read(path, resource, parameters)

    def stream(self, path: str, parameters: dict[str, str]) -> Iterator[bytes]:
        """A long answer, part by part."""
        try:
            with self._client.stream("GET", path, params=parameters) as response:
                if not response.is_success:
                    response.read()
                    raise to_error(response)
                yield from response.iter_bytes()
        except httpx.HTTPError as exc:
            raise unreachable(self._url, exc) from exc

    def write(
        self, method: str, path: str, body: BaseModel, resource: type[ResourceT]
    ) -> ResourceT:
        """Sends a body, of which what was not given is left out, and takes the resource."""
        text = body.model_dump_json(exclude_unset=True)
        return _parse(self._send(method, path, text), resource)

    def remove(self, path: str) -> None:
        """Deletes a resource."""
        self._send("DELETE", path)

    def _read(
        self, path: str, resource: type[ResourceT], parameters: dict[str, str] | None = None
    ) -> ResourceT:
        return _parse(self._send("GET", path, parameters=parameters), resource)

    def _send(
        self,
        method: str,
        path: str,
        body: str | None = None,
        parameters: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            response = self._client.request(
                method,
                path,
                content=body,
                params=parameters,
                headers={"Content-Type": "application/json"} if body is not None else None,
            )
        except httpx.HTTPError as exc:
            raise unreachable(self._url, exc) from exc
        if response.is_success:
            return response
        raise to_error(response)


def connect() -> AdminClient:
    """A client for the platform that the caller's settings name.

    Raises:
        UnauthenticatedError: If there is no admin key.
        SettingsError: If a variable is unknown or bad.
    """
    settings = ClientSettings.load()
    if settings.admin_key is None:
        raise UnauthenticatedError(
            "no admin key",
            hint="export PENSTOCK_ADMIN_KEY=...; `penstock up` printed it at its first start",
        )
    return AdminClient(settings.url, settings.admin_key.get_secret_value())


def needs_proxy(url: str) -> bool:
    """Whether a proxy of the environment may stand before this URL: not on this machine."""
    return httpx.URL(url).host not in ("127.0.0.1", "::1", "localhost")


def unreachable(url: str, cause: httpx.HTTPError) -> UnreachableError:
    """The error for a platform that does not answer."""
    how = "does not answer in time" if isinstance(cause, httpx.TimeoutException) else "is not there"
    return UnreachableError(
        f"the platform at {url} {how}",
        hint="start one with `penstock up`, or set PENSTOCK_URL",
    )


def to_error(response: httpx.Response) -> PenstockError:
    """Turns an error body back into the error that it was made of."""
    message, param, code = f"the platform answered {response.status_code}", None, None
    try:
        told = response.json()["error"]
        message, param, code = told["message"], told.get("param"), told.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # a proxy's page, or nothing: the status alone must do
    status = response.status_code
    kind = next((e for e in FIRST_ERRORS if e.code == code and e.status == status), None)
    kind = kind or next((e for e in reversed(FIRST_ERRORS) if e.status == status), PenstockError)
    if param and param not in message:
        message = f"{param}: {message}"
    return kind(message, param=param, hint=_HINTS.get(kind))


_HINTS: dict[type[PenstockError], str] = {
    ManifestError: "docs/reference/manifest.md describes every field",
    UnauthenticatedError: "check PENSTOCK_ADMIN_KEY and PENSTOCK_API_KEY, "
    "and that PENSTOCK_URL is the platform they belong to",
    ForbiddenError: "an admin key is needed; check PENSTOCK_ADMIN_KEY",
    ModelNotFoundError: "`penstock get models` lists what is deployed",
    UnavailableError: "`penstock status` tells more",
    UpstreamError: "`penstock get events` tells more",
}


def _parse(response: httpx.Response, resource: type[ResourceT]) -> ResourceT:
    try:
        return resource.model_validate_json(response.content)
    except ValidationError as exc:
        raise UpstreamError(
            "the answer is not one of the admin API", hint="does PENSTOCK_URL name a Penstock?"
        ) from exc
