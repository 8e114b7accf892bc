"""Failed starts and how a model stands."""

import pytest

from serving.controller.standing import Seen, assess
from serving.controller.starts import FAILED_RETRY_S, STABLE_S, Starts
from serving.protocol import ModelState


def fail(starts: Starts, now_s: float, ready_s: float | None = None) -> Starts:
    return starts.after_failure(now_s, ready_s=ready_s, error="broken", hint=None, host_id="h1")


def test_starts_wait_longer_after_each_failure_then_a_minute() -> None:
    starts, waits = Starts(), []
    for _ in range(4):
        starts = fail(starts, 100.0)
        assert starts.retry_s is not None
        waits.append(starts.retry_s - 100.0)
    assert waits == pytest.approx([0.2, 1.0, 60.0, 60.0])


def test_starts_begin_anew_after_an_engine_that_served_for_a_while() -> None:
    twice = fail(fail(Starts(), 1.0), 2.0)
    assert fail(twice, 10.0, ready_s=10.0 - STABLE_S) == Starts()
    assert fail(twice, 10.0, ready_s=9.0).failures == 3  # it died within seconds
    assert Starts().retry_s is None


def test_starts_have_failed_until_the_next_try_is_due() -> None:
    starts = fail(fail(fail(Starts(), 1.0), 2.0), 3.0)
    assert starts.has_failed(3.0)
    assert not starts.has_failed(3.0 + FAILED_RETRY_S)


@pytest.mark.parametrize(
    ("target", "ready", "starting", "failures", "state"),
    [
        (0, 0, 0, 0, ModelState.ASLEEP),
        (0, 0, 0, 1, ModelState.ASLEEP),
        (1, 0, 0, 0, ModelState.WAKING),
        (1, 0, 1, 2, ModelState.WAKING),
        (2, 2, 0, 0, ModelState.READY),
        (2, 1, 1, 0, ModelState.DEGRADED),
        (2, 1, 0, 3, ModelState.DEGRADED),
        (1, 0, 0, 3, ModelState.FAILED),
        (0, 1, 0, 3, ModelState.READY),
    ],
)
def test_model_state_follows_from_its_engines(
    target: int, ready: int, starting: int, failures: int, state: ModelState
) -> None:
    starts = Starts(failures, 10.0, "broken", "mend it", "h1") if failures else Starts()
    seen = Seen(
        target=target, ready=ready, outdated=0, starting=starting, waits_for_host=False,
        starts=starts, pool="cpu", pool_hosts=1,
    )  # fmt: skip
    standing = assess(seen, 11.0)
    assert standing.state is state
    assert "broken" not in standing.public_reason
    if failures and state is not ModelState.READY:
        assert "broken (mend it)" in standing.reason


def test_model_that_waits_for_a_host_says_which_pool_has_none() -> None:
    seen = Seen(
        target=1, ready=0, outdated=0, starting=0, waits_for_host=True, starts=Starts(),
        pool="h200x8", pool_hosts=0,
    )  # fmt: skip
    standing = assess(seen, 1.0)
    assert standing.reason == "waits for a host: in pool h200x8 no host is up"
    assert standing.public_reason == "no host is free"
