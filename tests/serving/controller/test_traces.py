"""The starts that are kept, and which first token completes which of them."""

from serving.controller.observed import Engine
from serving.controller.traces import KEPT, Traces
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


def test_traces_keep_the_last_starts_of_models_that_are_deployed() -> None:
    traces = Traces()
    for number in range(KEPT + 5):
        traces.routed(engine(f"eng-{number}"))
    assert [len(traces.of("guide")), traces.of("guide")[0].engine_id] == [KEPT, "eng-5"]
    traces.keep_only(["other"])
    assert traces.of("guide") == []
