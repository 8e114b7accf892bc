"""The starts that are kept, which first token completes which of them, and when one is whole."""

from serving.controller.observed_engine import Engine
from serving.controller.traces import FIRST_TOKEN_WITHIN_S, KEPT, Traces
from serving.protocol import FirstToken, StartPhase


def engine(engine_id: str, start_id: str = "cause", model: str = "guide") -> Engine:
    made = Engine(
        engine_id=engine_id, model=model, revision=1, start_id=start_id, manifest=None,
        host_id="h1", node="n1", bound_s=0.0, started_at=100.0,
    )  # fmt: skip
    made.marks = {StartPhase.ROUTED: 100.5, StartPhase.DEMAND_SEEN: 100.0}
    return made


def token(engine_id: str, start_id: str = "cause") -> FirstToken:
    return FirstToken(start_id=start_id, engine_id=engine_id, at=100.6, after_s=0.61)


def test_first_token_completes_the_start_it_was_caused_by() -> None:
    traces = Traces()
    for number in ("eng-1", "eng-2"):  # two engines for one request
        traces.routed(engine(number))
    assert traces.first_token("guide", token("eng-1", "another")) is None
    assert traces.first_token("other", token("eng-1")) is None
    done = traces.first_token("guide", token("eng-1"))
    assert done is traces.of("guide")[0]
    assert [phase for phase, _ in done.ordered()] == ["demand_seen", "routed", "first_token"]
    assert done.marks[StartPhase.DEMAND_SEEN] == 100.6 - 0.61
    assert traces.first_token("guide", token("eng-1")) is None, "told twice"
    assert traces.of("guide")[1].waited_s is None


def test_start_that_was_on_its_way_took_nothing_of_the_wait_until_the_request_came() -> None:
    traces = Traces()
    early = engine("eng-1")
    early.marks |= {StartPhase.DECIDED: 99.0, StartPhase.BOUND: 100.2}
    traces.routed(early)
    done = traces.first_token("guide", token("eng-1"))
    assert done is not None
    began = 100.6 - 0.61
    assert [at for _, at in done.ordered()] == [began, began, 100.2, 100.5, 100.6]


def test_traces_keep_the_last_starts_of_models_that_are_deployed() -> None:
    traces = Traces()
    for number in range(KEPT + 5):
        traces.routed(engine(f"eng-{number}"))
    assert [len(traces.of("guide")), traces.of("guide")[0].engine_id] == [KEPT, "eng-5"]
    traces.keep_only(["other"])
    assert traces.of("guide") == []


def test_failed_start_bears_its_cause_and_takes_no_first_token() -> None:
    traces = Traces()
    broken = engine("eng-1")
    del broken.marks[StartPhase.ROUTED]
    traces.failed(broken, "its weights are broken", 100.2)
    (trace,) = traces.of("guide")
    assert (trace.failed_at, trace.error) == (100.2, "its weights are broken")
    assert traces.first_token("guide", token("eng-1")) is None


def test_start_is_whole_once_nothing_can_be_added() -> None:
    traces = Traces()
    traces.routed(engine("answered"))
    traces.routed(engine("left"))
    unasked = engine("unasked")
    del unasked.marks[StartPhase.DEMAND_SEEN]
    traces.routed(unasked)
    traces.failed(engine("failed"), "broken", 100.2)
    assert [t.engine_id for t in traces.take_whole(100.7)] == ["unasked", "failed"]
    traces.first_token("guide", token("answered"))
    assert [t.engine_id for t in traces.take_whole(100.7)] == ["answered"]
    assert traces.take_whole(100.5 + FIRST_TOKEN_WITHIN_S - 1) == []
    assert [t.engine_id for t in traces.take_whole(100.5 + FIRST_TOKEN_WITHIN_S)] == ["left"]


def test_changed_starts_are_taken_once_and_can_be_put_back() -> None:
    traces = Traces()
    traces.routed(engine("eng-1"))
    taken = traces.take_changed()
    assert [t.engine_id for t in taken] == ["eng-1"]
    assert traces.take_changed() == []
    traces.routed(engine("eng-2"))
    traces.put_back(taken)
    assert [t.engine_id for t in traces.take_changed()] == ["eng-1", "eng-2"]


def test_restored_starts_are_neither_changed_nor_told_again() -> None:
    before = Traces()
    before.routed(engine("eng-1"))
    traces = Traces()
    traces.restore(before.of("guide"))
    assert [t.engine_id for t in traces.of("guide")] == ["eng-1"]
    assert traces.take_changed() == traces.take_whole(1000.0) == []
    assert traces.first_token("guide", token("eng-1")) is not None, "its request still waits"
    assert [t.engine_id for t in traces.take_changed()] == ["eng-1"]
