"""Tokens learned from bytes, prefill speeds, and objectives missed."""

import pytest

from serving.gateway.drain import LONGEST_S, UNKNOWN_S, Drain
from serving.gateway.estimates import Estimates
from serving.gateway.objectives import misses
from serving.gateway.prefill import PrefillSpeed
from serving.gateway.visits import Tokens
from tests.serving.gateway.fake_controller import model


def test_prompts_are_guessed_at_four_bytes_a_token_at_first() -> None:
    estimates = Estimates()
    assert estimates.prompt(4000) == 1000
    assert estimates.prompt(0) == 1


def test_bytes_a_token_and_length_of_answers_are_learned() -> None:
    estimates = Estimates()
    for _ in range(300):
        estimates.learn(prompt_bytes=3000, answers=1, tokens=Tokens(prompt=1500, completion=20))
    assert estimates.prompt(3000) == pytest.approx(1500, rel=0.05)
    assert estimates.output(None) == pytest.approx(20, abs=2)
    assert estimates.output(None, answers=4) == pytest.approx(80, abs=8)


def test_answer_is_no_longer_than_the_tenant_allows() -> None:
    assert Estimates().output(max_tokens=7) == 7
    assert Estimates().output(max_tokens=7, answers=3) == 21


def test_prompt_of_media_teaches_nothing_of_text() -> None:
    estimates = Estimates()
    estimates.learn(prompt_bytes=0, answers=1, tokens=Tokens(prompt=5000, completion=1))
    assert estimates.prompt(4000) == 1000


def test_prefill_speed_follows_what_streams_show() -> None:
    speed = PrefillSpeed()
    assert speed.excuse_s(1000) > 4.0
    for _ in range(100):
        speed.learn(1000, 0.5)
    assert speed.seconds_for(1000) == pytest.approx(0.5, rel=0.01)
    assert speed.excuse_s(1000) == pytest.approx(2.0, rel=0.01)


def test_drain_knows_its_rate_from_the_first_seconds_on() -> None:
    drain = Drain()
    assert drain.seconds_for(1000, 0.0) == UNKNOWN_S
    for tick in range(20):
        drain.note(50, tick * 0.1)
    assert drain.per_s(1.9) == pytest.approx(500, rel=0.15)
    assert drain.seconds_for(10**9, 1.9) == LONGEST_S
    assert drain.seconds_for(1, 1.9) == 1.0


@pytest.mark.parametrize(
    ("streamed", "first_byte_s", "ended_s", "missed"),
    [
        (True, 1.0, 10.0, False),  # 0.09 s a token
        (True, 2.5, 3.0, True),  # the first byte is late
        (True, 1.0, 12.0, True),  # 0.11 s a token
        (False, 11.0, 11.0, False),  # a whole answer has both times: 2 s and 100 x 0.1 s
        (False, 12.5, 12.5, True),
    ],
)
def test_objectives_are_missed_by_late_bytes_and_slow_tokens(
    streamed: bool, first_byte_s: float, ended_s: float, missed: bool
) -> None:
    promised = model().model_copy(update={"ttft_s": 2.0, "tpot_s": 0.1})
    for route, expected in ((promised, missed), (model(), False)):
        found = misses(
            route, streamed=streamed, began_s=0.0, first_byte_s=first_byte_s, ended_s=ended_s,
            output_tokens=101,
        )  # fmt: skip
        assert found is expected
