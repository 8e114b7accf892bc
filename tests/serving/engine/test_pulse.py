"""The sums over an engine's steps: what is timed, what is not, and how the counting begins."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from serving.engine.pulse import Pulse, take


@dataclass
class Clock:
    """Turned by hand."""

    s: float = 100.0

    def __call__(self) -> float:
        return self.s


@dataclass
class Step:
    """What vLLM tells of one step."""

    num_prompt_tokens: int = 0
    inter_token_latencies_iter: list[float] = field(default_factory=list)
    time_to_first_tokens_iter: list[float] = field(default_factory=list)


def scheduled(running: int, waiting: int = 0, kv: float = 0.5) -> SimpleNamespace:
    return SimpleNamespace(num_running_reqs=running, num_waiting_reqs=waiting, kv_cache_usage=kv)


def decoding(seqs: int) -> Step:
    return Step(inter_token_latencies_iter=[0.0] * seqs)


def test_decode_steps_are_timed_from_the_outputs_before() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.record(scheduled(2), Step(40, time_to_first_tokens_iter=[0.04, 0.02]))
    for _ in range(3):
        clock.s += 0.01
        pulse.record(scheduled(2), decoding(2))
    sums = pulse.sums
    assert (sums.decode_steps, sums.decode_seqs, sums.decode_seqs_squared) == (3, 6, 12)
    assert sums.decode_s == pytest.approx(0.03)
    assert sums.decode_seqs_s == pytest.approx(0.06)
    assert (sums.mixed_steps, sums.mixed_prompt_tokens) == (1, 40)
    assert sums.mixed_s == pytest.approx(0.04)  # after idling: the longest first token
    assert (sums.running, sums.waiting, sums.kv_use) == (2, 0, 0.5)


def test_idle_time_is_no_step() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.record(scheduled(1), decoding(1))
    clock.s += 0.01
    pulse.record(scheduled(0), decoding(1))  # its last token
    clock.s += 60.0
    pulse.record(scheduled(1), Step(10, time_to_first_tokens_iter=[0.1]))
    assert pulse.sums.decode_s == pytest.approx(0.01)
    assert pulse.sums.mixed_s == pytest.approx(0.1)


def test_chunks_of_a_long_prompt_count_as_one_prefill() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.record(scheduled(1), decoding(1))
    for _ in range(2):
        clock.s += 0.5
        pulse.record(scheduled(1), None)  # a chunk, and no token
    clock.s += 0.5
    pulse.record(scheduled(1), Step(6000, time_to_first_tokens_iter=[1.6]))
    assert pulse.sums.mixed_s == pytest.approx(1.5)
    assert pulse.sums.mixed_prompt_tokens == 6000


def test_impossible_values_are_left_out() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.record(scheduled(1, kv=float("nan")), decoding(1))
    clock.s += 3600.0  # the machine was suspended
    pulse.record(scheduled(1), decoding(1))
    clock.s -= 5.0
    pulse.record(scheduled(1, kv=-1.0), decoding(1))
    assert (pulse.sums.decode_steps, pulse.sums.kv_use) == (0, 0.0)
    pulse.record(None, None)


def test_take_begins_to_count_once() -> None:
    manager = SimpleNamespace(stat_loggers=[])
    app = SimpleNamespace(state=SimpleNamespace(engine_client=SimpleNamespace()))
    assert take(app) is None
    app.state.engine_client.logger_manager = manager
    assert take(app) is None
    (pulse,) = manager.stat_loggers
    pulse.record(scheduled(3), decoding(3))
    told = take(app)
    assert told is not None
    assert told["running"] == 3
    assert len(manager.stat_loggers) == 1


@pytest.mark.parametrize("app", [None, object()])
def test_take_says_nothing_of_an_app_without_an_engine(app: object) -> None:
    assert take(app) is None
