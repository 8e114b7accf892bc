"""What the gateways hold for each model, as they report it. In memory."""

from collections import Counter
from dataclasses import dataclass

from serving.controller.leases import split
from serving.protocol import DemandReport

STALE_AFTER_S = 2.0
"""A gateway reports each 0.25 s; one that was silent for this long is gone."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One model, summed over all live gateways."""

    queued: int = 0
    in_flight: int = 0
    arrivals: int = 0
    asked_since_s: float | None = None  # monotonic; when the oldest waiting request came
    start_id: str | None = None
    """Id of the oldest waiting request."""

    @property
    def is_some(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self.queued or self.in_flight)


@dataclass(frozen=True, slots=True)
class _Heard:
    at_s: float
    report: DemandReport
    requests: dict[str, int]
    """Waiting and running ones of each model."""


class Gateways:
    """The latest report of each live gateway; monotonic seconds."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._arrivals: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._heard)

    def hear(self, report: DemandReport, now_s: float) -> None:
        """Takes over a report in the place of the gateway's last one."""
        requests = Counter[str]()
        for part in report.models:
            requests[part.model] += part.queued + sum(part.in_flight.values())
        self._heard[report.gateway_id] = _Heard(now_s, report, requests)
        self._arrivals.update({d.model: d.arrivals for d in report.models if d.arrivals})

    def drop_stale(self, now_s: float) -> None:
        """Forgets the gateways that were silent for STALE_AFTER_S."""
        self._heard = {
            gateway: heard
            for gateway, heard in self._heard.items()
            if now_s - heard.at_s <= STALE_AFTER_S
        }

    def take_demand(self) -> dict[str, Demand] | None:
        """The demand for each model that has some; None where no gateway lives to tell.

        Arrivals count from the last call on.
        """
        demand = self.demand()
        if demand is None:
            return None
        self._arrivals.clear()
        return demand

    def demand(self) -> dict[str, Demand] | None:
        """As `take_demand`, but leaves the arrivals."""
        if not self._heard:
            return None
        found: dict[str, Demand] = {name: Demand(arrivals=n) for name, n in self._arrivals.items()}
        for heard in self._heard.values():
            for part in heard.report.models:
                known = found.get(part.model, Demand())
                since, start_id = known.asked_since_s, known.start_id
                if part.queued:
                    came_s = heard.at_s - part.oldest_wait_s
                    if since is None or came_s < since:
                        since, start_id = came_s, part.start_id
                found[part.model] = Demand(
                    queued=known.queued + part.queued,
                    in_flight=known.in_flight + sum(part.in_flight.values()),
                    arrivals=known.arrivals,
                    asked_since_s=since,
                    start_id=start_id,
                )
        return found

    def in_flight(self) -> dict[str, int]:
        """Requests that run in each engine."""
        running: Counter[str] = Counter()
        for heard in self._heard.values():
            for part in heard.report.models:
                running.update(part.in_flight)
        return dict(running)

    def lease(self, gateway_id: str, model: str, slots: int) -> int:
        """This gateway's share of one of the model's engines."""
        requests = {g: heard.requests.get(model, 0) for g, heard in self._heard.items()}
        return split(slots, requests).get(gateway_id, 1)
