"""Demand summed over gateways."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.controller.demand import LONGEST_WAIT_S, STALE_AFTER_S, Counts, Demand, Gateways
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
        "guide": Demand(
            queued=3, in_flight=3, queued_tokens=None, counts=Counts(2, None),
            asked_since_s=7.0, start_id="old",
        )
    }  # fmt: skip
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
    assert taken["guide"].counts.arrivals == 3
    taken = gateways.take_demand()
    assert taken is not None
    assert taken["guide"].counts.arrivals == 0


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


def test_demand_in_tokens_is_that_of_the_prompts() -> None:
    gateways = Gateways()
    told = {
        "queued": 2, "queued_tokens": 900, "queued_prompt_tokens": 400, "arrivals": 3,
        "arrived_tokens": 1000, "arrived_prompt_tokens": 600, "prefill_tokens": 50,
        "finished": 2, "finished_tokens": 700, "finished_output_tokens": 300, "missed": 1,
    }  # fmt: skip
    gateways.hear(report("a", **told), 10.0)
    gateways.hear(report("b", **told), 10.0)
    demand = (gateways.take_demand() or {})["guide"]
    assert (demand.queued_tokens, demand.prefill_tokens) == (800, 100)
    assert demand.counts == Counts(6, 1200, 4, 600, 2)


def test_gateway_that_tells_no_prompts_makes_them_unknown() -> None:
    gateways = Gateways()
    gateways.hear(report("new", queued=1, queued_prompt_tokens=10), 10.0)
    gateways.hear(report("old", queued=1, arrivals=1, finished=1), 10.0)
    demand = (gateways.take_demand() or {})["guide"]
    assert demand.queued_tokens is None
    assert demand.counts == Counts(1, None, 0, 0, 0)  # an answer of unknown length teaches nothing


@pytest.mark.parametrize("value", [math.nan, -1.0, -math.inf])
def test_report_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        report("a", queued=1, oldest_wait_s=value)


def test_gateway_whose_clock_jumped_asks_no_longer_than_a_day() -> None:
    gateways = Gateways()
    gateways.hear(report("a", queued=1, oldest_wait_s=math.inf), 10.0)
    assert (gateways.demand() or {})["guide"].asked_since_s == 10.0 - LONGEST_WAIT_S


parts = st.builds(
    ModelDemand,
    model=st.sampled_from(["guide", "other"]),
    queued=st.integers(0, 5),
    queued_prompt_tokens=st.one_of(st.none(), st.integers(0, 50)),
    oldest_wait_s=st.sampled_from([0.0, 1.0, 2.0]),
    arrivals=st.integers(0, 5),
    arrived_prompt_tokens=st.one_of(st.none(), st.integers(0, 50)),
    in_flight=st.dictionaries(st.sampled_from(["e1", "e2"]), st.integers(0, 5)),
    finished=st.integers(0, 5),
    finished_output_tokens=st.one_of(st.none(), st.integers(0, 50)),
    missed=st.integers(0, 5),
    start_id=st.sampled_from(["r1", "r2", None]),
)


@given(st.lists(st.lists(parts, max_size=2).map(tuple), min_size=1, max_size=4), st.randoms())
def test_permuted_gateways_change_nothing(reports: list[tuple[ModelDemand, ...]], chance) -> None:  # type: ignore[no-untyped-def]
    told = [DemandReport(gateway_id=f"g{n}", models=m) for n, m in enumerate(reports)]
    shuffled = list(told)
    chance.shuffle(shuffled)
    one, other = Gateways(), Gateways()
    for report_one, report_other in zip(told, shuffled, strict=True):
        one.hear(report_one, 10.0)
        other.hear(report_other, 10.0)
    assert one.take_demand() == other.take_demand()
    assert one.in_flight() == other.in_flight()
