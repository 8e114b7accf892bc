import json
from itertools import islice
from pathlib import Path

import orjson
import pytest

from loadtests.dialogues import Dialogues, read_dialogues
from loadtests.measure import Outcome
from loadtests.profile import ProfileError, read
from loadtests.prompts import Prompts
from loadtests.recordings import TraceError
from loadtests.workload import Length, Target

PROMPTS = Prompts([f"w{number}" for number in range(50)], overhead=3)
SHAREGPT = [
    {"id": "1", "conversations": [
        {"from": "gpt", "value": "Hello!"},
        {"from": "human", "value": "How are you?"},
        {"from": "gpt", "value": "Well, thanks."},
        {"from": "human", "value": "And now?"},
        {"from": "gpt", "value": "Still well, as I said."},
        {"from": "human", "value": "Never answered"},
    ]},
    {"id": "broken", "conversations": [{"from": "human", "value": None}]},
    "nothing", {"conversations": 7}, {},
]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sharegpt.json"
    path.write_text(json.dumps(SHAREGPT))
    return path


def answer(text: str) -> Outcome:
    return Outcome("dialogue", 0.0, 0.0, text=text)


def test_questions_and_lengths_of_answers_are_read(file: Path) -> None:
    assert read_dialogues(file) == ((("How are you?", 13), ("And now?", 22)),)


def test_lines_of_messages_are_read_too_and_broken_ones_left_out(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    path.write_text(json.dumps({"messages": messages}) + '\n{"messages": [{"ro\n\n')
    assert read_dialogues(path) == ((("Why?", 3),),)


def test_visitor_asks_on_with_the_models_own_answers(file: Path) -> None:
    (visitor,) = islice(Dialogues(file).sessions(Target("m"), PROMPTS, 0), 1)
    first = visitor.next(None)
    assert first is not None
    assert orjson.loads(first.body)["max_tokens"] == 3
    second = visitor.next(answer("Fine."))
    assert second is not None
    said = [message["content"] for message in orjson.loads(second.body)["messages"]]
    assert said == ["How are you?", "Fine.", "And now?"]
    assert visitor.next(answer("x")) is None


def test_long_dialogues_are_cut_and_answers_can_have_a_length_of_ours(file: Path) -> None:
    short = Dialogues(file, most_characters=30, output=Length(9))
    (visitor,) = islice(short.sessions(Target("m"), PROMPTS, 0), 1)
    ask = visitor.next(None)
    assert ask is not None
    assert orjson.loads(ask.body)["max_tokens"] == 9
    assert visitor.next(answer("x")) is None


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"conversations": []}'])
def test_file_without_a_dialogue_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.json"
    path.write_text(text)
    with pytest.raises(TraceError, match="holds no dialogue"):
        Dialogues(path).sessions(Target("m"), PROMPTS, 0)


def test_missing_file_is_a_profiles_error() -> None:
    with pytest.raises(ProfileError, match="there is no file"):
        read({"workload": {"type": "dialogues", "file": "/nowhere.json"}})
