"""What `penstock up` asks the controller by the platform's own token, without anybody's key."""

import httpx

from models.errors import UnreachableError
from serving.protocol import DemandReport, ModelDemand, ModelRoute, RoutesDelta

TIMEOUT_S = 5.0


class Insider:
    """A caller of `/internal/v1`; blocking."""

    def __init__(self, controller_url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=f"{controller_url}/internal/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            trust_env=False,  # no proxy stands between the parts of one machine
        )

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def route(self, name: str) -> ModelRoute | None:
        """The model as gateways see it, or None if it is not deployed.

        Raises:
            UnreachableError: If the controller does not answer.
        """
        try:
            # No table has version -1, so that the long poll answers at once.
            response = self._client.get("/routes", params={"after": -1}).raise_for_status()
        except httpx.HTTPError as exc:
            raise UnreachableError("the controller does not answer") from exc
        table = RoutesDelta.model_validate_json(response.content)
        return next((model for model in table.models if model.name == name), None)

    def wake(self, name: str) -> None:
        """Reports demand for a model as a gateway with one waiting request would.

        Raises:
            UnreachableError: If the controller does not answer.
        """
        demand = ModelDemand(model=name, queued=1)
        self._report(DemandReport(gateway_id="penstock-up", models=(demand,)))

    def rest(self) -> None:
        """Takes the demand back.

        Raises:
            UnreachableError: If the controller does not answer.
        """
        self._report(DemandReport(gateway_id="penstock-up"))

    def _report(self, report: DemandReport) -> None:
        try:
            self._client.post(
                "/demand",
                content=report.model_dump_json(),
                headers={"Content-Type": "application/json"},
            ).raise_for_status()
        except httpx.HTTPError as exc:
            raise UnreachableError("the controller does not answer") from exc
