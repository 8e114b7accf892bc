"""Reads: tables for people, `{"items": [...]}` for programs."""

import json

import pytest

from serving.protocol import ModelState
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform


@pytest.fixture(autouse=True)
def resources(platform: FakePlatform) -> None:
    platform.deploy("guide", ModelState.READY)
    platform.deploy("broken", ModelState.FAILED, "its weights are cut")
    platform.start_engine("e-1", "guide")


@pytest.mark.parametrize(
    ("noun", "key", "values"),
    [
        ("models", "name", ["guide", "broken"]),
        ("engines", "engine_id", ["e-1"]),
        ("hosts", "host_id", ["cpu-1"]),
        ("events", "kind", ["engine_failed"]),
    ],
)
def test_list_is_printed_both_ways(run: Run, noun: str, key: str, values: list[str]) -> None:
    as_json = run("get", noun, "--output", "json")
    assert as_json.code == 0
    assert [item[key] for item in json.loads(as_json.out)["items"]] == values
    assert not as_json.err
    table = run("get", noun)
    assert table.code == 0
    assert all(value in table.out for value in values)


def test_models_tell_why(run: Run) -> None:
    assert "its weights are cut" in run("get", "models").out


def test_events_can_be_narrowed(run: Run, platform: FakePlatform) -> None:
    assert run("get", "events", "--limit", "7", "--model", "guide").code == 0
    assert platform.asked[-1][2] == {"limit": ["7"], "model": ["guide"]}


def test_revisions_of_a_model(run: Run) -> None:
    found = json.loads(run("get", "revisions", "guide", "-o", "json").out)
    assert found["items"][0]["manifest"]["source"] == "builtin://guide"


def test_revisions_of_an_unknown_model_are_not_found(run: Run) -> None:
    outcome = run("get", "revisions", "nobody")
    assert outcome.code == 4
    assert "hint: `penstock get models`" in outcome.err


def test_status_shows_pools_and_models(run: Run) -> None:
    outcome = run("status")
    assert outcome.code == 0
    assert "2 of 2 hosts, 1 free" in outcome.out
    assert "guide" in outcome.out
    assert json.loads(run("status", "-o", "json").out)["gateways"] == 1


def test_version_lists_what_is_installed(run: Run) -> None:
    assert "penstock " in run("version").out
    assert "ray" in json.loads(run("version", "-o", "json").out)
