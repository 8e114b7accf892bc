"""What is learned of an engine from the sums of its steps, with and without a guess beforehand."""

import math
import random
from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.capacity import Capacity
from autoscaler.learning import KEPT_STEPS, Steps, fit

PRIOR = Capacity(slots=128, prefill_tps=10_000.0, step_s=0.02, step_per_seq_s=0.0005)
TRUE = Capacity(slots=128, prefill_tps=35_000.0, step_s=0.008, step_per_seq_s=0.000_12)


def step(prompt: int, batch: int, one: Capacity = TRUE, noise: float = 1.0) -> Steps:
    took_s = prompt / one.prefill_tps + (one.step_s + one.step_per_seq_s * batch if batch else 0)
    took_s *= noise
    if prompt:
        return Steps(mixed_steps=1, mixed_prompt_tokens=prompt, mixed_seqs=batch, mixed_s=took_s)
    return Steps(1, batch, batch * batch, took_s, batch * took_s)


def observed(steps: int, seed: int, one: Capacity = TRUE) -> Steps:
    source, seen = random.Random(seed), Steps()
    for _ in range(steps):
        prompt = source.choice([0, 0, 0, 512, 2048])
        seen = seen.plus(step(prompt, source.randint(1, 128), one, source.gauss(1.0, 0.03)))
    return seen


@pytest.mark.parametrize("prior", [PRIOR, None])
@pytest.mark.parametrize("seed", range(3))
def test_capacity_is_learned_from_noisy_steps(seed: int, prior: Capacity | None) -> None:
    found = fit(observed(2000, seed), 128, prior)
    assert found is not None
    assert found.prefill_tps == pytest.approx(TRUE.prefill_tps, rel=0.1)
    assert found.step_s == pytest.approx(TRUE.step_s, rel=0.1)
    assert found.step_per_seq_s == pytest.approx(TRUE.step_per_seq_s, rel=0.15)


def test_prior_stands_until_enough_was_seen() -> None:
    assert fit(step(0, 8), 128, PRIOR) == PRIOR
    assert fit(step(0, 8), 128) is None
    assert fit(Steps(), 128) is None


def test_first_requests_are_enough_where_nothing_was_known() -> None:
    seen = step(40, 0).plus(step(40, 0))
    for _ in range(30):
        seen = seen.plus(step(0, 1))
    found = fit(seen, 64)
    assert found is not None
    assert found.slots == 64
    assert found.prefill_tps == pytest.approx(35_000, rel=0.01)
    assert found.token_s(1) == pytest.approx(TRUE.token_s(1), rel=0.01)


def test_changed_engine_is_learned_anew() -> None:
    slower = replace(TRUE, prefill_tps=17_500.0, step_s=0.016)
    seen = observed(3000, 1)
    for _ in range(8):
        seen = seen.plus(observed(3000, 2, slower))
    found = fit(seen, 128, PRIOR)
    assert found is not None
    assert found.prefill_tps == pytest.approx(17_500.0, rel=0.1)
    assert found.step_s == pytest.approx(0.016, rel=0.1)


def test_reading_that_went_back_or_is_no_number_tells_nothing() -> None:
    assert Steps(5).since(Steps(3)) == Steps(2)
    assert Steps(2).since(Steps(3)) is None
    assert Steps(math.nan).since(Steps()) is None
    assert Steps(math.inf).since(Steps()) is None


amounts = st.floats(0, 1e9)


@given(st.builds(Steps, *[amounts] * 9), st.sampled_from([PRIOR, None]))
def test_whatever_is_told_the_capacity_is_one(seen: Steps, prior: Capacity | None) -> None:
    found = fit(Steps().plus(seen), 16, prior)
    if found is None:
        assert prior is None
        return
    assert found.prefill_tps > 0
    assert all(math.isfinite(value) and value >= 0 for value in astuple(found))
    assert found.batch_within(0.1) >= 1
    assert math.isfinite(found.token_s(8))


@given(st.lists(st.builds(Steps, *[amounts] * 9), max_size=20))
def test_sums_stay_bounded(readings: list[Steps]) -> None:
    seen = Steps()
    for reading in readings:
        seen = seen.plus(reading)
    assert seen.decode_steps <= KEPT_STEPS * 1.001
    assert seen.mixed_steps <= KEPT_STEPS * 1.001
