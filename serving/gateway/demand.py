"""What the gateway tells the controller of the demand that it sees. Pure: time is an argument."""

from collections.abc import Iterable

from serving.gateway.lane import Lane
from serving.gateway.tally import Tally
from serving.protocol import DemandReport, ModelDemand


def make_report(
    gateway_id: str, lanes: Iterable[Lane], now_s: float, suspect: tuple[str, ...] = ()
) -> DemandReport:
    """The report of this moment; it takes what was counted since the last one out of the lanes.

    A model is named while it has demand, and once more when it has none any longer.

    Args:
        suspect: Engines that make no steps.
    """
    lanes = list(lanes)
    models: list[ModelDemand] = []
    for lane in lanes:
        demand = _of_lane(lane, now_s)
        if demand.start_id is not None and demand.start_id not in lane.named:
            lane.named.append(demand.start_id)
        counted = demand.arrivals or demand.finished or demand.first_tokens or demand.revisions
        busy = bool(demand.queued or demand.in_flight or counted)
        if busy or lane.reported:
            models.append(demand)
        lane.reported = busy
        lane.bell.told(demand.queued, now_s)
        lane.tally = Tally()
        lane.first_tokens = []
    quarantined = tuple(one for lane in lanes for one in lane.quarantined)
    for lane in lanes:
        lane.quarantined = []
    return DemandReport(
        gateway_id=gateway_id, models=tuple(models), suspect=suspect, quarantined=quarantined
    )


def take_back(report: DemandReport, lanes: Iterable[Lane]) -> None:
    """Puts what was counted in a report that got lost back, for the next one.

    One that was lost only on its way back counts twice: too much demand for a moment is the
    better error.
    """
    lost = {demand.model: demand for demand in report.models}
    for lane in lanes:
        name = lane.route.name
        lane.quarantined += [one for one in report.quarantined if one.model == name]
        if (demand := lost.get(name)) is not None:
            lane.tally.add(_tally_of(demand))
            lane.trials.take_back(demand.revisions)
            lane.first_tokens = [*demand.first_tokens, *lane.first_tokens]
            lane.reported = True


def _of_lane(lane: Lane, now_s: float) -> ModelDemand:
    oldest = lane.line.oldest()
    tally = lane.tally
    return ModelDemand(
        model=lane.route.name,
        queued=len(lane.line),
        queued_tokens=lane.line.tokens,
        queued_prompt_tokens=lane.line.prompt_tokens,
        oldest_wait_s=lane.line.oldest_wait_s(now_s),
        arrivals=tally.arrivals,
        arrived_tokens=tally.arrived_tokens,
        arrived_prompt_tokens=tally.arrived_prompt_tokens,
        prefill_tokens=lane.balancer.prefill_tokens(),
        finished=tally.finished,
        finished_tokens=tally.finished_tokens,
        finished_output_tokens=tally.finished_output_tokens,
        missed=tally.missed,
        in_flight=lane.balancer.in_flight(),
        start_id=oldest.start_id if oldest is not None else None,
        first_tokens=tuple(lane.first_tokens),
        revisions=lane.trials.take(),
    )


def _tally_of(demand: ModelDemand) -> Tally:
    return Tally(
        arrivals=demand.arrivals,
        arrived_tokens=demand.arrived_tokens,
        arrived_prompt_tokens=demand.arrived_prompt_tokens or 0,
        finished=demand.finished,
        finished_tokens=demand.finished_tokens,
        finished_output_tokens=demand.finished_output_tokens or 0,
        missed=demand.missed,
    )
