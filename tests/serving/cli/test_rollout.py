"""Following a rollout: sentences, and exit codes that a script can go by."""

import json
from typing import Any

import pytest

from models.errors import ConflictError
from serving.protocol import ModelState
from serving.rollout import CanaryView, FiguresView, RolloutView
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform


@pytest.fixture
def guide(platform: FakePlatform) -> FakePlatform:
    platform.deploy("guide", ModelState.READY)
    return platform


def rolled(revision: int, **fields: Any) -> RolloutView:
    values: dict[str, Any] = {
        "model": "guide", "revision": revision, "done": True, "engines_wanted": 1, "ready": 1,
        "starting": 0, "old": 0, "reason": "", **fields,
    }  # fmt: skip
    return RolloutView(**values)


def test_status_says_how_a_canary_stands(run: Run, guide: FakePlatform) -> None:
    canary = CanaryView(
        stable=1, share=0.25, step=2, steps=4, paused=False, why="the step lasts 9 s more",
        old=FiguresView(answered=60, failed=0, ttft_p95_s=0.1, tpot_p95_s=None),
        new=FiguresView(answered=20, failed=1, ttft_p95_s=0.2, tpot_p95_s=0.01),
    )  # fmt: skip
    guide.rollouts = [rolled(2, done=False, old=1, reason="one is ready", canary=canary)]
    told = run("rollout", "status", "guide").out
    assert "guide revision 2: on its way; 1 of 1 engines ready" in told
    assert "step 2 of 4: gets 25% of the requests, revision 1 the rest; the step lasts" in told
    assert "new: 20 answered, 1 failed, TTFT p95 200.0 ms, TPOT p95 10.0 ms" in told
    outcome = run("rollout", "status", "guide", "--output", "json")
    assert json.loads(outcome.out)["canary"]["share"] == 0.25


def test_wait_ends_when_the_revision_has_taken_over(run: Run, guide: FakePlatform) -> None:
    guide.rollouts = [rolled(2, done=False), rolled(2, done=False), rolled(2)]
    assert run("rollout", "status", "guide", "--wait", "60").code == 0
    assert guide.rollouts == [rolled(2)]


def test_wait_that_is_over_fails(run: Run, guide: FakePlatform) -> None:
    guide.rollouts = [rolled(2, done=False)]
    outcome = run("rollout", "status", "guide", "--wait", "0")
    assert outcome.code == 1
    assert "revision 2 of guide has not taken over within 0 s" in outcome.err


def test_wait_fails_where_the_revision_gave_way(run: Run, guide: FakePlatform) -> None:
    guide.rollouts = [rolled(2, done=False), rolled(3)]
    outcome = run("rollout", "status", "guide", "--wait", "60")
    assert outcome.code == 1
    assert "revision 2 of guide gave way to revision 3" in outcome.err


def test_history_says_what_changed(run: Run, guide: FakePlatform) -> None:
    told = run("rollout", "history", "guide").out
    assert "CHANGED" in told
    assert "first" in told


def test_undo_with_nothing_to_undo_is_told(run: Run, guide: FakePlatform) -> None:
    guide.failure = ConflictError("guide has one revision only: there is nothing to undo")
    outcome = run("rollout", "undo", "guide")
    assert (outcome.code, "nothing to undo" in outcome.err) == (5, True)
