"""What a gateway takes of a window ahead, in time that the tests set."""

import pytest

from serving.gateway.limits_ahead import FRESH_S, GROWTH, HOLD_S, PACE_S, Aheads
from serving.gateway.limits_script import Claim, Outcome, Verdict

BUCKET = 100
CLAIM = Claim(b"window", amount=1, limit=1000)


def ask(aheads: Aheads, at_s: float, granted: int | None = None) -> int:
    """A request goes to Redis and is let in; what it took ahead, all that it wanted or less."""
    claims, _ = aheads.ask([CLAIM], at_s)
    amount = claims[0].ahead if granted is None else granted
    outcome = Outcome(Verdict(0, [BUCKET], [0]), [amount], BUCKET + 2)
    aheads.note(claims, outcome, at_s, at_s)
    return claims[0].ahead


def test_first_request_takes_nothing_ahead() -> None:
    aheads = Aheads()
    assert aheads.known([CLAIM], 0.0) is None
    assert ask(aheads, 0.0) == 0


def test_steady_key_takes_what_it_needs_until_it_lapses() -> None:
    aheads = Aheads()
    asked = 0
    for n in range(200):  # 100 requests a second
        at_s = n / 100
        if aheads.known([CLAIM], at_s) is None:
            ask(aheads, at_s)
            asked += 1
    assert asked <= 12
    assert ask(aheads, 2.0) == pytest.approx(100 * HOLD_S, rel=0.1)


def test_key_that_comes_seldom_takes_nothing() -> None:
    aheads = Aheads()
    assert [ask(aheads, 3.0 * n) for n in range(5)] == [0] * 5


def test_burst_tells_no_pace() -> None:
    aheads = Aheads()
    assert [ask(aheads, 10.0 + n * PACE_S / 100) for n in range(20)] == [0] * 20


def test_pace_grows_step_by_step() -> None:
    aheads = Aheads()
    ask(aheads, 0.0)
    assert ask(aheads, 2 * PACE_S) <= GROWTH


def test_use_is_counted_in_the_bucket_that_was_granted() -> None:
    aheads = Aheads()
    ask(aheads, 0.0)
    assert ask(aheads, 0.1, granted=3) > 0
    verdicts = [aheads.known([CLAIM], 0.2) for _ in range(4)]
    assert [None if v is None else list(v.buckets) for v in verdicts] == [[BUCKET + 2]] * 3 + [None]


def test_grant_lapses_and_goes_back() -> None:
    aheads = Aheads()
    ask(aheads, 0.0)
    ask(aheads, 0.1, granted=3)
    assert aheads.known([CLAIM], 0.2) is not None
    assert aheads.lapse(0.1 + HOLD_S - 0.01) == []
    assert aheads.known([CLAIM], 0.1 + HOLD_S) is None
    assert aheads.lapse(0.1 + HOLD_S) == [(b"window", -2, BUCKET + 2)]
    assert aheads.lapse(0.1 + HOLD_S) == []


def test_what_is_held_goes_back_with_the_next_request() -> None:
    aheads = Aheads()
    ask(aheads, 0.0)
    ask(aheads, 0.1, granted=3)
    large = Claim(b"window", amount=4, limit=1000)
    assert aheads.known([large], 0.2) is None
    _, back = aheads.ask([large], 0.2)
    assert back == [(b"window", -3, BUCKET + 2)]


def test_request_that_one_window_does_not_hold_takes_of_none() -> None:
    aheads = Aheads()
    ask(aheads, 0.0)
    ask(aheads, 0.1, granted=1)
    assert aheads.known([CLAIM, Claim(b"other", 1, 10)], 0.2) is None
    assert aheads.known([CLAIM], 0.2) is not None


def test_refusal_is_remembered_for_a_moment() -> None:
    aheads = Aheads()
    claims, _ = aheads.ask([CLAIM], 0.0)
    aheads.note(claims, Outcome(Verdict(1, [], [1000]), [0], BUCKET + 2), 0.0, 0.0)
    known = aheads.known([CLAIM], FRESH_S / 2)
    assert known is not None
    assert known.failed == 1
    assert aheads.known([CLAIM], 2 * FRESH_S) is None
    assert aheads.known([Claim(b"window", amount=0, limit=1000)], FRESH_S / 2) is None


def test_idle_windows_are_forgotten() -> None:
    aheads = Aheads()
    ask(aheads, 0.0)
    assert aheads
    aheads.lapse(60.0)
    assert not aheads
