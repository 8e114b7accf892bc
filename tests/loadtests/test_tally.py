from loadtests.measure import Failure, Outcome
from loadtests.tally import Tally


def test_outcomes_survive_the_way_to_the_master() -> None:
    good = Outcome("chat", 1.0, 1.5, 200, ttft_s=0.25, e2e_s=2.0, prompt_tokens=7, chunks=3)
    good.output_tokens, good.cached_tokens, good.text_missing = 4, 2, True
    bad = Outcome("chat", 2.0, 2.0, None, Failure.CONNECT)
    worker, master = Tally(), Tally()
    worker.add(good)
    master.take_over(worker.hand_over())
    worker.add(bad)
    master.take_over(worker.hand_over())
    assert worker.hand_over() == []
    assert master.outcomes == [good, bad]
    assert master.duration_s == 2.0


def test_nothing_takes_no_time() -> None:
    assert Tally().duration_s == 0.0
