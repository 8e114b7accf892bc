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


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("arrivals", "what arrives keeps 1.70 engines busy"),
        ("backlog", "it takes 2.40 engines to have it through in time"),
        ("slots", "the slots of 3.10 engines"),
        ("hold", "no more were needed within the last 30 s; the load of the moment needs 1"),
        ("no_capacity", "4 are needed, and the pool has room for 1 more"),
        ("paused", "the autoscaler is paused"),
        ("signal_missing", "no gateway reported"),
    ],
)
def test_explain_tells_the_numbers_behind_each_reason(
    run: Run, platform: FakePlatform, reason: str, told: str
) -> None:
    numbers = {
        "queued": 7, "queued_tokens": 900, "oldest_wait_s": 0.5, "in_flight": 2, "by_arrivals": 1.7,
        "by_backlog": 2.4, "by_slots": 3.1, "window_s": 30.0, "available": 1, "draining": 1,
        "cold_start_s": 0.42, "prefill_tps": 5000.0,
        "needed": 4 if reason == "no_capacity" else 1,
    }  # fmt: skip
    platform.decisions = [change(1, 2, reason, **numbers)]
    line = run("explain", "guide").out
    assert told in line
    if reason in ("arrivals", "backlog", "slots", "hold", "no_capacity"):
        assert "7 requests waited with 900 prompt tokens, the oldest for 0.50 s and 2 ran" in line
        assert "and 1 draining; a start takes 0.42 s" in line


def test_explain_asks_for_as_many_as_wanted(run: Run, platform: FakePlatform) -> None:
    run("explain", "guide", "-n", "3")
    assert platform.asked[-1][2] == {"limit": ["3"]}
