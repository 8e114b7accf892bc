"""Endpoints that fail: kept away for longer each time, probed back by one request."""

from serving.gateway.breaker import FIRST_S, LONGEST_S, Breaker


def test_failure_keeps_requests_away_for_a_time_that_doubles() -> None:
    breaker, now_s, waits = Breaker(), 0.0, []
    for _ in range(8):
        until_s = breaker.failed(now_s)
        waits.append(until_s - now_s)
        assert not breaker.lets_in(until_s - 0.01)
        assert breaker.lets_in(until_s)
        now_s = until_s
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == LONGEST_S


def test_requests_that_fail_together_are_one_failure() -> None:
    breaker = Breaker()
    until_s = breaker.failed(0.0)
    assert [breaker.failed(0.1) for _ in range(50)] == [until_s] * 50


def test_one_request_probes_and_lets_the_others_in() -> None:
    breaker = Breaker()
    until_s = breaker.failed(0.0)
    breaker.sent()
    assert not breaker.lets_in(until_s)
    breaker.succeeded()
    assert breaker.lets_in(until_s)
    breaker.sent()
    assert breaker.lets_in(until_s)


def test_probe_that_tells_nothing_is_followed_by_another() -> None:
    breaker = Breaker()
    until_s = breaker.failed(0.0)
    breaker.sent()
    breaker.gave_up()
    assert breaker.lets_in(until_s)
    breaker.sent()
    assert not breaker.lets_in(until_s)


def test_pause_is_no_failure() -> None:
    breaker = Breaker()
    breaker.pause(5.0)
    assert not breaker.lets_in(4.9)
    breaker.sent()
    assert breaker.lets_in(5.0)
