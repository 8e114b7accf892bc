"""Demand reports: what is said, when, and what happens to one that got lost."""

from serving.gateway.demand import make_report, take_back
from serving.gateway.lane import Lane
from serving.gateway.places import LaneLimits, Place
from serving.gateway.tally import Tally
from serving.protocol import DemandReport, FirstToken, ModelDemand
from tests.serving.gateway.fake_controller import model


def lane() -> Lane:
    return Lane(model("demo"), LaneLimits(10), alarm=lambda: None)


def report(one: Lane, now_s: float = 0.0) -> DemandReport:
    return make_report("gw", [one], now_s)


def test_report_counts_who_waits_and_names_the_first() -> None:
    one = lane()
    one.tally = Tally(
        2, 300, 200, finished=1, finished_tokens=90, finished_output_tokens=40, missed=1
    )
    for number, name in enumerate(["first", "second"]):
        waiting = Place(name, float(number), 99.0, prompt_tokens=100, output_tokens=50)
        one.line.join(waiting, float(number))
    assert report(one, now_s=5.0).models == (
        ModelDemand(
            model="demo",
            queued=2,
            queued_tokens=300,
            queued_prompt_tokens=200,
            oldest_wait_s=5.0,
            arrivals=2,
            arrived_tokens=300,
            arrived_prompt_tokens=200,
            finished=1,
            finished_tokens=90,
            finished_output_tokens=40,
            missed=1,
            start_id="first",
        ),
    )


def test_idle_model_is_not_spoken_of() -> None:
    assert report(lane()).models == ()


def test_end_of_demand_is_reported_once() -> None:
    one = lane()
    one.tally = Tally(arrivals=1)
    assert [len(report(one).models) for _ in range(3)] == [1, 1, 0]


def test_lost_report_gives_its_arrivals_to_the_next() -> None:
    one = lane()
    one.tally = Tally(arrivals=3)
    lost = report(one)
    one.tally = Tally(arrivals=1)
    take_back(lost, [one])
    assert report(one).models[0].arrivals == 4


def test_lost_end_of_demand_is_told_again() -> None:
    one = lane()
    one.tally = Tally(arrivals=1)
    report(one)
    take_back(report(one), [one])
    assert len(report(one).models) == 1


def test_first_token_of_a_named_request_is_reported_once() -> None:
    alarms: list[bool] = []
    one = Lane(model("demo"), LaneLimits(10), alarm=lambda: alarms.append(True))
    place = Place("cause", arrived_s=0.0, deadline_s=99.0)
    one.line.join(place, 0.0)
    report(one)
    one.line.leave(place)
    one.note_first_token("another", "eng-1", at=100.0, after_s=0.5)
    assert not alarms
    one.note_first_token("cause", "eng-1", at=100.0, after_s=0.5)
    one.note_first_token("cause", "eng-1", at=101.0, after_s=1.5)
    assert alarms == [True]
    token = FirstToken(start_id="cause", engine_id="eng-1", at=100.0, after_s=0.5)
    lost = report(one)
    assert lost.models[0].first_tokens == (token,)
    assert report(one).models[0].first_tokens == ()
    take_back(lost, [one])
    assert report(one).models[0].first_tokens == (token,)
