"""What gateways tell of their demand, and what they are answered: leases, and what to refuse."""

from collections.abc import Callable, Sequence

from serving.controller.demand import Gateways
from serving.controller.events import EventLog
from serving.controller.fleet import Fleet
from serving.controller.placement import Life
from serving.controller.rollouts import Rollouts
from serving.controller.telemetry import Telemetry
from serving.controller.traces import Traces
from serving.protocol import DemandReply, DemandReport, EndpointRoute


class Hearing:
    """Takes gateways' reports in, and hands what they say on to those who count it."""

    def __init__(
        self,
        fleet: Fleet,
        gateways: Gateways,
        rollouts: Rollouts,
        traces: Traces,
        telemetry: Telemetry,
        events: EventLog,
        kick: Callable[[], None],
    ) -> None:
        """`kick` is called where a report is reason enough to plan at once."""
        self.elsewhere: Sequence[tuple[str, EndpointRoute]] = ()
        """By model, endpoints that others run."""
        self._fleet = fleet
        self._gateways = gateways
        self._rollouts = rollouts
        self._traces = traces
        self._telemetry = telemetry
        self._events = events
        self._kick = kick

    def hear(self, report: DemandReport, now_s: float) -> DemandReply:
        """A gateway tells of its demand, and gets its leases; `now_s` is monotonic."""
        self._gateways.hear(report, now_s)
        self._rollouts.hear(report)
        for demand in report.models:
            for token in demand.first_tokens:
                if (trace := self._traces.first_token(demand.model, token)) is not None:
                    self._telemetry.observe_first_token(trace)
        if any(d.queued and not self._has_ready(d.model) for d in report.models):
            self._kick()
        self._hear_trouble(report)
        return DemandReply(
            quarantined=self._gateways.quarantined(report.gateway_id),
            killed=self._gateways.killed(now_s),
            leases=self._leases(report.gateway_id),
        )

    def _has_ready(self, model: str) -> bool:
        return any(engine.life is Life.READY for engine in self._fleet.bound(model))

    def _hear_trouble(self, report: DemandReport) -> None:
        """Engines that hang, and requests that engines died of."""
        for engine in self._fleet.bound() if report.suspect else ():
            if engine.engine_id in report.suspect and engine.life is Life.READY:
                engine.hung = True
                self._kick()
        for request in report.quarantined:
            engines = ", ".join(request.engine_ids)
            self._events.record(
                "request_quarantined",
                f"request {request.request_id} is refused for a while: {engines} died of it",
                model=request.model,
            )

    def _leases(self, gateway_id: str) -> dict[str, int]:
        leases = {
            engine.engine_id: self._gateways.lease(gateway_id, engine.model, engine.slots)
            for engine in self._fleet.bound()
            if engine.life is Life.READY
        }
        for model, route in self.elsewhere:
            leases[route.engine_id] = self._gateways.lease(
                gateway_id, model, route.slots, looks_ahead=False
            )
        return leases
