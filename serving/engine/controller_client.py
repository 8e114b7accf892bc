"""A host's side of the controller's internal API."""

from typing import TypeVar

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from models.errors import NotFoundError, UnreachableError
from serving.leaders import LEADER_HEADER, TRIES, Controllers
from serving.metered import AttemptBatch, AttemptReceipt
from serving.protocol import (
    POLL_S,
    Assignment,
    HostAdmission,
    HostRegistration,
    HostReport,
)

Answer = TypeVar("Answer", bound=BaseModel)

POLL_MARGIN_S = 5.0
"""How much later than promised a long poll may be answered."""


class ControllerClient:
    """Speaks for one host.

    Args:
        url: Base URL of the controller, or of several, as `Controllers` reads them.
        token: The internal token.
        transport: Stands in for the network in tests.
    """

    def __init__(
        self, url: str, token: SecretStr, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._controllers = Controllers(url)
        self._http = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token.get_secret_value()}"},
            transport=transport,
            timeout=httpx.Timeout(5.0, connect=2.0),
        )

    async def close(self) -> None:
        """Closes all connections."""
        await self._http.aclose()

    async def register(self, registration: HostRegistration) -> None:
        """Introduces the host.

        Raises:
            UnreachableError: If the controller does not answer, or not with success.
        """
        await self._send("POST", "hosts/register", registration)

    async def assignment(
        self, host_id: str, after: int, prefetch_id: str | None = None
    ) -> Assignment:
        """Waits until the assignment's version is not `after`, at most POLL_S.

        `prefetch_id` names the list of what to fetch beforehand that the host has.

        Raises:
            NotFoundError: If the controller does not know the host.
            UnreachableError: If the controller does not answer, or not with success.
        """
        path = f"hosts/{host_id}/assignment?after={after}"
        path += "" if prefetch_id is None else f"&prefetch={prefetch_id}"
        answer = await self._send("GET", path, timeout_s=POLL_S + POLL_MARGIN_S)
        return _parse(Assignment, answer)

    async def report(self, host_id: str, report: HostReport) -> HostAdmission:
        """Tells what the host sees.

        Raises:
            NotFoundError: If the controller does not know the host.
            UnreachableError: If the controller does not answer, or not with success.
        """
        return _parse(HostAdmission, await self._send("POST", f"hosts/{host_id}/report", report))

    async def attempts(self, batch: AttemptBatch) -> AttemptReceipt:
        """Tells what an engine's recorder counted.

        Raises:
            UnreachableError: If the controller does not answer, or could not store it.
        """
        return _parse(AttemptReceipt, await self._send("POST", "attempts", batch))

    async def _send(
        self, method: str, path: str, body: BaseModel | None = None, timeout_s: float = 5.0
    ) -> httpx.Response:
        content = None if body is None else body.model_dump_json()
        for _ in range(TRIES):
            url = self._controllers.url
            try:
                async with self._controllers.asking():
                    answer = await self._http.request(
                        method,
                        f"{url}/internal/v1/{path}",
                        content=content,
                        headers={"content-type": "application/json"},
                        timeout=httpx.Timeout(timeout_s, connect=2.0),
                    )
            except (httpx.HTTPError, TimeoutError) as exc:
                self._controllers.is_away(url)
                raise UnreachableError(f"the controller does not answer: {exc!r}") from exc
            if not self._controllers.refused(url, answer.headers.get(LEADER_HEADER)):
                break
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFoundError("the controller does not know this host")
        if not answer.is_success:
            raise UnreachableError(f"the controller answers {answer.status_code} to {path}")
        return answer


def _parse(kind: type[Answer], answer: httpx.Response) -> Answer:
    try:
        # What a newer controller knows of a manifest and this host does not is no reason to stop.
        return kind.model_validate_json(answer.content, extra="ignore")
    except ValidationError as exc:
        raise UnreachableError(f"the controller sends no {kind.__name__}") from exc
