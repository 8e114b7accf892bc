"""Recorded dialogues, ShareGPT's files and their like, as visitors who ask what was asked then.

Formats, told by their contents: a JSON list or JSON lines, each entry with `conversations` (`from`,
`value`), as ShareGPT's, or `messages` (`role`, `content`), as OpenAI's.
"""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict

from loadtests.prompts import Prompts
from loadtests.recordings import TraceError
from loadtests.workload import STRICT, Length, Session, Talk, Target

CHARACTERS_PER_TOKEN = 4
"""Common in English; how many tokens an answer really had, only the model that gave it knew."""

_ASKING, _ANSWERING = ("human", "user"), ("gpt", "chatgpt", "assistant", "bard", "bing")

Turn = tuple[str, int]
"""What was asked, and the characters of the answer."""


@cache
def read_dialogues(path: Path) -> tuple[tuple[Turn, ...], ...]:
    """The dialogues of a file; entries that are none, or begin with an answer, are left out.

    Raises:
        TraceError: The file cannot be read, or holds no dialogue.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"cannot read the dialogues in {path}: {error}") from error
    found = tuple(turns for entry in _entries(text) if (turns := _turns(entry)))
    if not found:
        raise TraceError(f"{path} holds no dialogue")
    return found


def _entries(text: str) -> list[object]:
    try:
        listed = json.loads(text)
    except ValueError:
        listed = [_line(line) for line in text.splitlines()]
    return listed if isinstance(listed, list) else [listed]


def _line(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _turns(entry: object) -> tuple[Turn, ...]:
    if not isinstance(entry, Mapping):
        return ()
    said = entry.get("conversations") or entry.get("messages")
    turns: list[Turn] = []
    asked: str | None = None
    for part in said if isinstance(said, list) else ():
        if not isinstance(part, Mapping):
            break
        who, what = part.get("from") or part.get("role"), part.get("value") or part.get("content")
        if not isinstance(what, str):
            break
        if who in _ASKING:
            asked = what
        elif who in _ANSWERING and asked is not None:
            turns.append((asked, len(what)))
            asked = None
    return tuple(turns)


@dataclass(frozen=True, slots=True)
class Dialogues:
    """Visitors drawn from a file, who go on as theirs did; the model's own answers stand in the
    prompts, not the recorded ones."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    file: Path
    turns: int = 1_000
    """Longest dialogue; what goes on is cut there."""
    most_characters: int = 4_000
    """A dialogue ends before the turn with which questions and answers would be longer: the
    model's context bounds what can be asked."""
    output: Length | None = None
    """Tokens of an answer; by default the recorded one's, at four characters each."""
    kind: str = "dialogue"
    type: Literal["dialogues"] = "dialogues"

    def __post_init__(self) -> None:
        if not self.file.is_file():
            raise ValueError(f"there is no file {self.file}")

    def sessions(self, target: Target, prompts: Prompts, seed: int) -> Iterator[Session]:
        """Endless visitors, in an order of the seed's.

        Raises:
            TraceError: The file cannot be used, or no dialogue is short enough.
        """
        usable = [kept for turns in read_dialogues(self.file) if (kept := self._cut(turns))]
        if not usable:
            raise TraceError(f"no dialogue in {self.file} is short enough")
        return self._endless(usable, target, random.Random(f"{self.kind}/{seed}"))  # noqa: S311

    def _cut(self, turns: tuple[Turn, ...]) -> list[Turn]:
        kept: list[Turn] = []
        characters = 0
        for asked, answered in turns[: self.turns]:
            characters += len(asked) + answered
            if characters > self.most_characters:
                break
            kept.append((asked, answered))
        return kept

    def _endless(
        self, usable: list[list[Turn]], target: Target, rng: random.Random
    ) -> Iterator[Session]:
        while True:
            for dialogue in rng.sample(usable, len(usable)):
                turns: list[tuple[list[dict[str, object]], int, float]] = [
                    ([{"role": "user", "content": asked}], self._tokens(answered, rng), 0.0)
                    for asked, answered in dialogue
                ]
                yield Talk(target, self.kind, turns)

    def _tokens(self, answered: int, rng: random.Random) -> int:
        if self.output is not None:
            return self.output.draw(rng)
        return max(1, answered // CHARACTERS_PER_TOKEN)
