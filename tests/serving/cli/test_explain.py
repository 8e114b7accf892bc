"""`penstock explain`: changes of a target as sentences, and as JSON."""

import json

import pytest

from serving.protocol import ModelState
from serving.views import DecisionView
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import THEN, FakePlatform


def change(before: int, target: int, reason: str, **seen: float) -> DecisionView:
    numbers = {"queued": 0, "in_flight": 0, "ready": 0, "starting": 0, "idle_s": 0.0, **seen}
    return DecisionView(at=THEN, before=before, target=target, reason=reason, **numbers)


@pytest.fixture(autouse=True)
def changes(platform: FakePlatform) -> None:
    platform.deploy("guide", ModelState.READY)
    platform.decisions = [
        change(0, 1, "demand", queued=3),
        change(1, 0, "idle", ready=1, idle_s=300.2),
    ]


def test_explain_tells_each_change_with_its_numbers(run: Run) -> None:
    done = run("explain", "guide")
    assert done.code == 0
    first, second = done.out.splitlines()
    assert "from 0 to 1 engine, because 3 requests waited and 0 ran" in first
    assert "from 1 to 0 engines, because nobody had asked for 300.2 s (idle)" in second


def test_explain_as_json(run: Run) -> None:
    items = json.loads(run("explain", "guide", "-o", "json").out)["items"]
    assert [item["target"] for item in items] == [1, 0]


def test_explain_where_nothing_happened(run: Run, platform: FakePlatform) -> None:
    platform.decisions = []
    assert "nobody asked" in run("explain", "guide").out


def test_explain_of_an_unknown_model_is_not_found(run: Run) -> None:
    assert run("explain", "none").code == 4
