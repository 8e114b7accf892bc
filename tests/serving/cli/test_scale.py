"""`penstock scale`: what is changed is sent, the rest is left alone."""

import json

import pytest

from serving.protocol import ModelState
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform


@pytest.fixture(autouse=True)
def deployed(platform: FakePlatform) -> None:
    platform.deploy("guide", ModelState.READY)


def sent(platform: FakePlatform) -> object:
    (body,) = [body for method, _, _, body in platform.asked if method == "PATCH"]
    return json.loads(body)


def test_bounds_are_sent_alone(run: Run, platform: FakePlatform) -> None:
    done = run("scale", "guide", "--min", "0", "--max", "3")
    assert done.code == 0
    assert sent(platform) == {"min": 0, "max": 3}
    assert "min 0, max 3" in done.err
    assert "no engine is restarted" in done.err


@pytest.mark.parametrize(("flag", "paused"), [("--pause", True), ("--resume", False)])
def test_pause_and_resume(run: Run, platform: FakePlatform, flag: str, paused: bool) -> None:
    done = run("scale", "guide", flag)
    assert sent(platform) == {"paused": paused}
    assert ("the autoscaler is paused" in done.err) is paused


def test_nothing_to_change_is_bad_input(run: Run) -> None:
    done = run("scale", "guide")
    assert done.code == 2
    assert "--pause" in done.err


def test_unknown_model_is_not_found(run: Run) -> None:
    assert run("scale", "none", "--min", "1").code == 4
