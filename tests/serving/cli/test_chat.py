"""Chatting: the answer on stdout as it comes, the rest on stderr."""

import io
import json

import pytest

from models.errors import ModelNotFoundError
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform


def chunk(text: str) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}}]})


ANSWER = [
    json.dumps({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
    chunk("Good "),
    chunk("day."),
    json.dumps({"choices": [], "usage": {"completion_tokens": 3}}),
    "[DONE]",
]


def test_answer_goes_to_stdout_and_its_speed_to_stderr(run: Run, platform: FakePlatform) -> None:
    platform.chunks = ANSWER
    outcome = run("chat", "guide", "Hello")
    assert outcome.code == 0
    assert outcome.out == "Good day.\n"
    assert "TTFT" in outcome.err
    assert "3 tokens" in outcome.err
    sent = json.loads(platform.asked[-1][3])
    assert sent["model"] == "guide"
    assert sent["messages"] == [{"role": "user", "content": "Hello"}]


def test_conversation_remembers_its_turns(
    run: Run, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.chunks = ANSWER
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n\nAgain\n"))
    assert run("chat").code == 0
    sent = json.loads(platform.asked[-1][3])["messages"]
    assert [turn["content"] for turn in sent] == ["Hello", "Good day.", "Again"]


def test_unknown_model_is_not_found(run: Run, platform: FakePlatform) -> None:
    platform.failure = ModelNotFoundError("the model 'x' does not exist", param="model")
    outcome = run("chat", "x", "Hello")
    assert outcome.code == 4
    assert "hint: `penstock get models`" in outcome.err


def test_error_in_the_stream_ends_the_answer(run: Run, platform: FakePlatform) -> None:
    platform.chunks = [ANSWER[1], json.dumps({"error": {"message": "the engine broke off"}})]
    outcome = run("chat", "guide", "Hello")
    assert outcome.code == 1
    assert outcome.out == "Good \n"
    assert "error: the engine broke off" in outcome.err


def test_stream_of_something_else_is_an_error(run: Run, platform: FakePlatform) -> None:
    platform.chunks = ["<html>"]
    assert run("chat", "guide", "Hello").code == 1
