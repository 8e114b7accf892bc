"""Reasoning told token by token: marks, what a prompt leaves open, gpt-oss's channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine.reasoning import (
    HARMONY,
    KINDS_KEPT,
    Channels,
    Marked,
    Marks,
    Readers,
    channels_of,
    is_reasoning,
    marks_of,
    parser_named_in,
)

OPEN, CLOSE, CALL, WORD = 1, 2, 3, 9
MARKS = Marks(frozenset({OPEN}), frozenset({CLOSE}), from_start=False)
FROM_START = Marks(frozenset({OPEN}), frozenset({CLOSE}), from_start=True)


@dataclass
class Parser:
    """As vLLM's are, as far as a reader goes."""

    tokenizer: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    thinks: bool = True
    reasoning_start_str: str | None = "<think>"
    reasoning_end_str: str | None = "</think>"

    vocab = {"<think>": OPEN, "</think>": CLOSE, "x": WORD}  # noqa: RUF012, a fake's

    def is_reasoning_end(self, ids: Sequence[int]) -> bool:
        return CLOSE in ids

    def extract_reasoning_streaming(self, *_: object) -> object:
        return SimpleNamespace(reasoning="x" if self.thinks else None)


@pytest.mark.parametrize(
    ("marks", "prompt", "ended", "made", "reasoning"),
    [
        (MARKS, [], False, [OPEN, WORD, WORD, CLOSE, WORD], 2),
        (MARKS, [], False, [WORD, WORD], 0),
        (MARKS, [OPEN, WORD], False, [WORD, CLOSE, WORD], 1),
        (MARKS, [OPEN, WORD, CLOSE], False, [WORD], 0),
        (MARKS, [], False, [OPEN, WORD, CLOSE, WORD, OPEN, WORD], 2),
        (FROM_START, [], False, [WORD, WORD, CLOSE, WORD], 2),
        (FROM_START, [], False, [OPEN, WORD, CLOSE, WORD], 1),
        (FROM_START, [], False, [CLOSE, WORD], 0),
        (FROM_START, [CLOSE], True, [WORD], 0),
        (FROM_START, [CLOSE], False, [WORD], 1),
    ],
)
def test_tokens_between_the_marks_are_reasoning(
    marks: Marks, prompt: list[int], ended: bool, made: list[int], reasoning: int
) -> None:
    assert marks.reader(prompt, ended).count(made) == reasoning


@given(st.lists(st.sampled_from([OPEN, CLOSE, WORD]), max_size=30), st.integers(0, 30))
def test_count_is_the_same_however_many_tokens_a_step_makes(made: list[int], cut: int) -> None:
    one, other = Marked(FROM_START, True), Marked(FROM_START, True)
    assert one.count(made) == other.count(made[:cut]) + other.count(made[cut:])


def test_parsers_marks_are_found_in_its_vocabulary() -> None:
    assert marks_of(Parser()) == FROM_START
    assert marks_of(Parser(thinks=False)) == MARKS
    implicit = Parser()
    implicit.reasoning_end_token_ids = frozenset({CALL})  # type: ignore[attr-defined]
    assert marks_of(implicit) == Marks(frozenset({OPEN}), frozenset({CLOSE, CALL}), True)


@pytest.mark.parametrize("end", [None, "Here is my answer:"])
def test_parser_whose_end_is_no_token_gives_no_count(end: str | None) -> None:
    made = Readers("granite", lambda *_: Parser(reasoning_end_str=end))
    assert made.reader(None, {}, [], False) is None


def test_vllms_word_on_the_prompt_is_held_against_the_parser() -> None:
    """It also says that reasoning has ended where the tenant does not want to see it."""
    readers = Readers("qwen3", lambda *_: Parser())
    counts = []
    for prompt, ended in [([WORD], True), ([CLOSE], True), ([WORD], None), ([CLOSE], None)]:
        reader = readers.reader(None, {}, prompt, ended)
        assert reader is not None
        counts.append(reader.count([WORD]))
    assert counts == [1, 0, 1, 0]


def test_one_parser_serves_all_requests_with_the_same_arguments() -> None:
    made: list[Mapping[str, Any]] = []

    def make(tokenizer: object, arguments: Mapping[str, Any]) -> Parser:
        made.append(arguments)
        arguments["chat_template_kwargs"]["thinking"] = True  # some write into what they get
        return Parser(tokenizer, arguments)

    readers = Readers("deepseek_v3", make)
    for _ in range(3):
        arguments = {"chat_template_kwargs": {"enable_thinking": True}}
        assert readers.reader("tokenizer", arguments, [], False) is not None
    assert len(made) == 1
    assert arguments == {"chat_template_kwargs": {"enable_thinking": True}}
    for number in range(2 * KINDS_KEPT):
        readers.reader("tokenizer", {"chat_template_kwargs": {"n": number}}, [], False)
    readers.reader("tokenizer", {"chat_template_kwargs": {"documents": "x" * 9000}}, [], False)
    assert len(readers._kinds) == KINDS_KEPT


def test_parser_that_fails_costs_no_request() -> None:
    def make(*_: object) -> Parser:
        raise RuntimeError("could not locate think start/end tokens in the tokenizer!")

    readers = Readers("ernie45", make)
    assert [readers.reader(None, {}, [], False) for _ in range(2)] == [None, None]


START, CHANNEL, MESSAGE, END, RETURN, TOOL_CALL = range(100, 106)
HARMONY_WORDS = {
    "<|start|>": START, "<|channel|>": CHANNEL, "<|message|>": MESSAGE, "<|end|>": END,
    "<|return|>": RETURN, "<|call|>": TOOL_CALL, "assistant": 10, "analysis": 11, "final": 12,
    "comment": 13, "ary": 14, " to=": 15, "functions.f": 16, "x": WORD,
}  # fmt: skip


class HarmonyTokenizer:
    def get_vocab(self) -> dict[str, int]:
        return HARMONY_WORDS

    def decode(self, ids: list[int]) -> str:
        words = {number: word for word, number in HARMONY_WORDS.items()}
        return "".join(words[one] for one in ids)


ANALYSIS = [CHANNEL, 11, MESSAGE, WORD, WORD, END]
TO_TOOL = [START, 10, CHANNEL, 13, 14, 15, 16, MESSAGE, WORD, TOOL_CALL]
TO_TOOL_BEFORE = [START, 10, 15, 16, CHANNEL, 13, 14, MESSAGE, WORD, TOOL_CALL]
PREAMBLE = [START, 10, CHANNEL, 13, 14, MESSAGE, WORD, END]
FINAL = [START, 10, CHANNEL, 12, MESSAGE, WORD, WORD, WORD, RETURN]


@pytest.mark.parametrize(
    ("made", "reasoning"),
    [
        (ANALYSIS + FINAL, 2),
        (ANALYSIS[:4], 1),  # cut
        (ANALYSIS + TO_TOOL, 3),
        (ANALYSIS + TO_TOOL_BEFORE, 3),
        (ANALYSIS + PREAMBLE + FINAL, 2),
        ([CHANNEL, 12, MESSAGE, WORD], 0),
        ([WORD, WORD], 0),
    ],
)
def test_channels_of_gpt_oss_tell_reasoning_from_answers(made: list[int], reasoning: int) -> None:
    readers = Readers(HARMONY, lambda *_: Parser())
    reader = readers.reader(HarmonyTokenizer(), {}, [], True)
    assert reader is not None
    assert sum(reader.count([one]) for one in made) == reasoning


def test_tokenizer_without_channels_has_none() -> None:
    assert channels_of(SimpleNamespace(get_vocab=lambda: {"<|start|>": 1})) is None
    found = channels_of(HarmonyTokenizer())
    assert isinstance(found, Channels)
    assert found.ends == {END, RETURN, TOOL_CALL}


@pytest.mark.parametrize(
    ("header", "reasons"),
    [
        ("<|channel|>analysis", True),
        ("assistant<|channel|>commentary to=functions.f <|constrain|>json", True),
        ("assistant to=functions.f<|channel|>commentary<|constrain|>json", True),
        ("assistant<|channel|>commentary", False),
        ("assistant<|channel|>final", False),
        ("", False),
    ],
)
def test_header_says_what_a_message_is(header: str, reasons: bool) -> None:
    assert is_reasoning(header) is reasons


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--model=m", "--reasoning-parser=qwen3", "--port", "1"], "qwen3"),
        (["--reasoning_parser", "qwen3"], "qwen3"),
        (["--model=m", "--reasoning-parser-plugin=x.py"], None),
    ],
)
def test_parser_is_read_from_a_command_line(arguments: list[str], name: str | None) -> None:
    assert parser_named_in(arguments) == name
