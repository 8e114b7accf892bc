"""A search's outcome as a measured profile."""

import pytest

from models.manifest import parse_manifest
from models.profile_measured import Measured, Paired
from serving.tuning.found import profile_of
from serving.tuning.halving import Outcome, Wish
from serving.tuning.trials import Figures, Settings, Trial
from tests.serving.tuning.world import figures

MANIFEST = parse_manifest({"name": "m", "source": "hf://a/b@main", "engine": {"max_num_seqs": 16}})
WISH = Wish("throughput", {"ttft_p99": 2.0}, 60.0)
BEST: Settings = {"max_num_seqs": 64}


def trial(key: str, settings: Settings, rounds: int, measured: Figures | None) -> Trial:
    failure = None if measured is not None else "out of memory"
    return Trial(
        key=key, settings=settings, rounds=rounds, took_s=1.0, figures=measured, failure=failure
    )


TRIALS = [
    trial("0", {}, 1, figures(rate=500.0)),
    trial("0-a", BEST, 1, figures(rate=900.0)),
    trial("0-b", {"stream_interval": 4}, 1, None),
    trial("1-a", BEST, 3, figures(rate=800.0, tpot_s=0.02)),
]


def made(best: Settings = BEST) -> Measured:
    outcome = Outcome(best, Paired(pairs=10, ratio=1.2, low=1.1, high=1.3), TRIALS, 2)
    return profile_of(
        outcome, MANIFEST, WISH, lengths=(64, 32), hardware="2 x Some", vllm="0.32.0",
        day="2026-11-22",
    )  # fmt: skip


def test_profile_has_the_figures_of_the_longest_trial_of_the_best() -> None:
    profile = made()
    assert profile.settings == BEST
    assert [level.output_tokens_s for level in profile.levels] == [25.0, 200.0, 800.0]
    assert (profile.trials, profile.failed_trials) == (4, 1)
    assert (profile.source, profile.pool, profile.slots) == ("hf://a/b", "cpu", 64)


def test_front_is_of_all_trials_with_their_arguments() -> None:
    front = made().pareto
    assert [(point.output_tokens_s, point.settings) for point in front] == [(900.0, BEST)]


def test_step_is_what_a_token_takes_less_the_prompts_beside() -> None:
    steps = made().steps
    assert [step.batch for step in steps] == [1, 8, 32]
    # 32 visitors: two prompt tokens of each come in for each token, at 5,000 tokens/s.
    assert steps[0].step_s == pytest.approx(0.02 - 2 / 5000)
    assert steps[1].step_s == pytest.approx(0.02 - 16 / 5000)
    assert steps[2].step_s == pytest.approx(0.02 - 64 / 5000)


def test_visitors_beyond_the_slots_are_no_batch() -> None:
    profile = made({})
    assert profile.slots == 16
    assert [step.batch for step in profile.steps] == [1, 8]
    assert [level.concurrency for level in profile.levels] == [1, 8, 32]
    assert profile.tokens_s(32, 64, 32) == profile.tokens_s(16, 64, 32)
