"""The guide's text: intents, each an answer with the questions that ask for it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import yaml

CORPUS_DIR: Final[Path] = Path(__file__).parent / "corpus"

_FIELDS: Final[frozenset[str]] = frozenset({"id", "answer", "questions", "held_out"})


class CorpusError(ValueError):
    """A corpus file that is not a list of well-formed intents."""


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing that the guide can say, and the ways to ask for it."""

    id: str
    answer: str
    questions: tuple[str, ...]
    """Trained, and varied by augmentation."""
    held_out: tuple[str, ...]
    """Only ever asked by tests: paraphrases that training never sees."""


def load_corpus(folder: Path = CORPUS_DIR) -> tuple[Intent, ...]:
    """Read every `*.yaml` file of `folder`, in the order of file names.

    Raises:
        CorpusError: A file does not hold a list of intents with exactly the fields of `Intent`.
    """
    return tuple(intent for path in sorted(folder.glob("*.yaml")) for intent in _load_file(path))


def normalized(question: str) -> str:
    """What is left of a question without case, punctuation and repeated spaces.

    Two questions that are equal in this form count as the same question.
    """
    words = re.sub(r"[^\w+*/^-]+", " ", question.lower().replace("'", "")).strip()
    return words or question.strip()


def _load_file(path: Path) -> list[Intent]:
    entries: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise CorpusError(f"{path.name}: expected a list of intents")
    return [_intent(entry, path) for entry in entries]


def _intent(entry: object, path: Path) -> Intent:
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise CorpusError(f"{path.name}: an intent has exactly the fields {sorted(_FIELDS)}")
    name = entry["id"]
    for field in ("questions", "held_out"):
        if not all(isinstance(question, str) for question in entry[field]):
            raise CorpusError(f"{path.name}: {name}: quote every entry of {field}")
    fields = cast("dict[str, list[str]]", entry)
    return Intent(
        id=str(name),
        answer=str(entry["answer"]).strip(),
        questions=tuple(fields["questions"]),
        held_out=tuple(fields["held_out"]),
    )
