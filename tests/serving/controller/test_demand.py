"""Demand summed over gateways."""

from serving.controller.demand import STALE_AFTER_S, Demand, Gateways
from serving.protocol import DemandReport, ModelDemand


def report(gateway: str, **fields: object) -> DemandReport:
    demand = ModelDemand.model_validate({"model": "guide", "queued": 0, **fields})
    return DemandReport(gateway_id=gateway, models=(demand,))


def test_demand_is_unknown_without_a_gateway() -> None:
    assert Gateways().demand() is None


def test_demand_is_summed_and_the_oldest_request_named() -> None:
    gateways = Gateways()
    gateways.hear(report("a", queued=2, oldest_wait_s=1.0, start_id="young", arrivals=2), 10.0)
    gateways.hear(
        report("b", queued=1, oldest_wait_s=3.0, start_id="old", in_flight={"e1": 2, "e2": 1}), 10.0
    )
    assert gateways.demand() == {
        "guide": Demand(queued=3, in_flight=3, arrivals=2, asked_since_s=7.0, start_id="old")
    }
    assert gateways.in_flight() == {"e1": 2, "e2": 1}


def test_demand_replaces_a_gateways_last_report() -> None:
    gateways = Gateways()
    gateways.hear(report("a", queued=2), 10.0)
    gateways.hear(DemandReport(gateway_id="a"), 10.2)
    assert gateways.demand() == {}


def test_demand_counts_arrivals_until_they_are_taken() -> None:
    gateways = Gateways()
    gateways.hear(report("a", arrivals=1), 10.0)
    gateways.hear(report("a", arrivals=2), 10.1)
    taken = gateways.take_demand()
    assert taken is not None
    assert taken["guide"].arrivals == 3
    taken = gateways.take_demand()
    assert taken is not None
    assert taken["guide"].arrivals == 0


def test_demand_of_a_gateway_that_is_silent_is_dropped() -> None:
    gateways = Gateways()
    gateways.hear(report("a", queued=1), 10.0)
    gateways.hear(report("b", queued=1), 11.0)
    gateways.drop_stale(10.5 + STALE_AFTER_S)
    assert len(gateways) == 1
    gateways.drop_stale(11.5 + STALE_AFTER_S)
    assert gateways.demand() is None


def test_leases_follow_the_demand_for_the_model_alone() -> None:
    gateways = Gateways()
    gateways.hear(report("a", queued=30), 10.0)
    gateways.hear(report("b", in_flight={"e1": 10}), 10.0)
    other = ModelDemand(model="other", queued=500)
    gateways.hear(DemandReport(gateway_id="c", models=(other,)), 10.0)
    assert [gateways.lease(g, "guide", 62) for g in "abc"] == [50, 18, 1]
