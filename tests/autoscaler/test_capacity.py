"""What is learned of an engine from its steps."""

import math
import random

import pytest

from autoscaler.capacity import Capacity, Learned, below_floor, fitted, learn

PRIOR = Capacity(slots=128, prefill_tps=10_000.0, step_s=0.02, step_per_seq_s=0.0005)
TRUE = Capacity(slots=128, prefill_tps=35_000.0, step_s=0.008, step_per_seq_s=0.000_12)


def observed(steps: int, seed: int) -> Capacity:
    source, learned, known = random.Random(seed), Learned(), PRIOR
    for _ in range(steps):
        batch = source.randint(1, 128)
        prompt = source.choice([0, 0, 0, 512, 2048])
        took_s = prompt / TRUE.prefill_tps + TRUE.step_s + TRUE.step_per_seq_s * batch
        learned = learn(learned, known, prompt, batch, took_s * source.gauss(1.0, 0.03))
        known = fitted(learned, known)
    return known


@pytest.mark.parametrize("seed", range(3))
def test_capacity_is_learned_from_noisy_steps(seed: int) -> None:
    found = observed(2000, seed)
    assert found.prefill_tps == pytest.approx(TRUE.prefill_tps, rel=0.1)
    assert found.step_s == pytest.approx(TRUE.step_s, rel=0.1)
    assert found.step_per_seq_s == pytest.approx(TRUE.step_per_seq_s, rel=0.15)


def test_prior_stands_until_enough_was_seen() -> None:
    assert fitted(learn(Learned(), PRIOR, 0, 8, 0.01), PRIOR) == PRIOR


@pytest.mark.parametrize(
    ("prompt", "batch", "took_s"), [(0, 0, 0.1), (5, 1, math.nan), (5, 1, -1.0), (-5, 1, 0.1)]
)
def test_impossible_step_changes_nothing(prompt: int, batch: int, took_s: float) -> None:
    assert learn(Learned(), PRIOR, prompt, batch, took_s) == Learned()


def test_slo_below_the_floor_is_warned_of_with_the_floor() -> None:
    assert below_floor(TRUE, ttft_s=2.0, tpot_s=0.1, cold_start_s=0.5) == []
    warnings = below_floor(TRUE, ttft_s=0.001, tpot_s=0.005, cold_start_s=15.0)
    assert [w.split()[0] for w in warnings] == ["ttft_s", "ttft_s", "tpot_s"]
    assert "0.0081 s" in warnings[2]
    assert "smaller chunk" in below_floor(TRUE, 2.0, 0.05, None)[0]
