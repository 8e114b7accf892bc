"""Slow endpoints, by comparison with the others."""

from serving.gateway.pace import ENOUGH, Pace, may_eject, outlier


def pace(ttft_s: float, tpot_s: float = 0.01, answers: int = ENOUGH) -> Pace:
    made = Pace()
    for _ in range(answers):
        made.note(ttft_s, tpot_s)
    return made


def test_endpoint_far_slower_than_the_others_is_an_outlier() -> None:
    assert outlier({"a": pace(0.1), "b": pace(0.12), "c": pace(2.0)}) == "c"
    assert outlier({"a": pace(0.1), "b": pace(0.1, tpot_s=0.5)}) == "b"


def test_small_differences_are_no_illness() -> None:
    assert outlier({"a": pace(0.01), "b": pace(0.2)}) is None
    assert outlier({"a": pace(1.0), "b": pace(2.5)}) is None


def test_endpoint_is_judged_only_after_enough_answers_and_beside_others() -> None:
    assert outlier({"a": pace(0.1), "b": pace(9.0, answers=ENOUGH - 1)}) is None
    assert outlier({"a": pace(0.1, answers=1), "b": pace(9.0)}) is None
    assert outlier({"b": pace(9.0)}) is None


def test_load_that_slows_all_of_them_ejects_none() -> None:
    assert outlier({name: pace(30.0, 1.0) for name in "abcd"}) is None


def test_mean_forgets() -> None:
    healed = pace(5.0)
    for _ in range(30):
        healed.note(0.1, 0.01)
    assert outlier({"a": pace(0.1), "b": healed}) is None


def test_no_more_than_a_third_are_kept_away_and_never_the_last() -> None:
    assert may_eject(endpoints=2, ejected=0)
    assert not may_eject(endpoints=1, ejected=0)
    assert not may_eject(endpoints=2, ejected=1)
    assert may_eject(endpoints=9, ejected=2)
    assert not may_eject(endpoints=9, ejected=3)
