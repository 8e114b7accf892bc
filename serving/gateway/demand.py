"""What the gateway tells the controller of the demand that it sees. Pure: time is an argument."""

from collections.abc import Iterable

from serving.gateway.lanes import Lane
from serving.protocol import DemandReport, ModelDemand


def make_report(gateway_id: str, lanes: Iterable[Lane], now_s: float) -> DemandReport:
    """The report of this moment; it takes the arrivals and first tokens out of the lanes.

    A model is named while it has demand, and once more when it has none any longer.
    """
    models: list[ModelDemand] = []
    for lane in lanes:
        demand = _of_lane(lane, now_s)
        if demand.start_id is not None and demand.start_id not in lane.named:
            lane.named.append(demand.start_id)
        busy = bool(demand.queued or demand.in_flight or demand.arrivals or demand.first_tokens)
        if busy or lane.reported:
            models.append(demand)
        lane.reported = busy
        lane.arrivals = 0
        lane.first_tokens = []
    return DemandReport(gateway_id=gateway_id, models=tuple(models))


def take_back(report: DemandReport, lanes: Iterable[Lane]) -> None:
    """Puts the arrivals and first tokens of a report that got lost back, for the next one.

    One that was lost only on its way back counts twice: too much demand for a moment is the
    better error.
    """
    lost = {demand.model: demand for demand in report.models}
    for lane in lanes:
        if (demand := lost.get(lane.route.name)) is not None:
            lane.arrivals += demand.arrivals
            lane.first_tokens = [*demand.first_tokens, *lane.first_tokens]
            lane.reported = True


def _of_lane(lane: Lane, now_s: float) -> ModelDemand:
    head = lane.line.first()
    return ModelDemand(
        model=lane.route.name,
        queued=len(lane.line),
        oldest_wait_s=lane.line.oldest_wait_s(now_s),
        arrivals=lane.arrivals,
        in_flight=lane.balancer.in_flight(),
        start_id=head.start_id if head is not None else None,
        first_tokens=tuple(lane.first_tokens),
    )
