"""Variants of trained questions: openings, synonyms, casing, punctuation, typos, dropped words."""

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from models.demo.corpus import Intent, normalized

RULES_FILE: Final[Path] = Path(__file__).parent / "augmentation.yaml"

OFF_TOPIC: Final[str] = "off_topic"
_SMALL_TALK: Final[frozenset[str]] = frozenset(
    {"hello", "how_are_you", "thanks", "goodbye", "praise", "complaint", "ping", "capabilities"}
)
_DROPPABLE: Final[frozenset[str]] = frozenset(
    {"a", "an", "the", "is", "are", "do", "does", "of", "to", "for", "in", "on", "with", "it"}
    | {"its", "my", "i", "you", "your", "can", "this", "that", "there"}
)
_LETTERS: Final[str] = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class _OffTopic:
    patterns: tuple[tuple[str, tuple[str, ...]], ...]
    fillers: dict[str, tuple[str, ...]]

    def sample(self, rng: random.Random) -> str:
        kind, patterns = rng.choice(self.patterns)
        text = rng.choice(patterns).replace("{}", rng.choice(self.fillers[kind]))
        return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(self.fillers[slot.group(1)]), text)


class Augmenter:
    """Draws variants of trained questions, none of which equals a held-out question."""

    def __init__(self, corpus: tuple[Intent, ...], rules_file: Path = RULES_FILE) -> None:
        rules = yaml.safe_load(rules_file.read_text(encoding="utf-8"))
        self._held_out = {normalized(q) for intent in corpus for q in intent.held_out}
        self._openings: list[list[str]] = rules["openings"]
        self._synonyms: list[list[str]] = rules["synonyms"]
        self._by_phrase: dict[str, list[list[str]]] = {}
        for group in self._synonyms:
            for phrase in group:
                self._by_phrase.setdefault(phrase, []).append(group)
        longest_first = sorted(self._by_phrase, key=len, reverse=True)
        self._phrase = re.compile(
            rf"(?<![\w-])({'|'.join(map(re.escape, longest_first))})(?![\w-])"
        )
        self._before: list[str] = rules["before"]
        self._after: list[str] = rules["after"]
        self._after_topic: list[str] = rules["after_topic"]
        off_topic = rules["off_topic"]
        self._off_topic = _OffTopic(
            patterns=tuple((kind, tuple(texts)) for kind, texts in off_topic["patterns"]),
            fillers={kind: tuple(map(str, texts)) for kind, texts in off_topic["fillers"].items()},
        )

    def vary(self, intent: Intent, rng: random.Random) -> str:
        """A question that asks for `intent`, as drawn by `rng`; one in seven is as written."""
        for _ in range(20):
            question = self._draw(intent, rng)
            if normalized(question) not in self._held_out:
                return question
        return rng.choice(intent.questions)

    def _draw(self, intent: Intent, rng: random.Random) -> str:
        if intent.id == OFF_TOPIC and rng.random() < 0.6:
            question = _sentence_case(self._off_topic.sample(rng)) + "?"
        else:
            question = rng.choice(intent.questions)
            if rng.random() < 0.14:
                return question
        if intent.id not in _SMALL_TALK:
            question = self._reword(question, intent, rng)
        return _roughen(question, rng)

    def _reword(self, question: str, intent: Intent, rng: random.Random) -> str:
        if rng.random() < 0.5:
            question = self._reopen(question, rng)
        if intent.id != OFF_TOPIC and rng.random() < 0.7:
            question = self._replace_synonyms(question, rng)
        if rng.random() < 0.25:
            question = _drop_words(question, rng)
        if rng.random() < 0.15:
            question = f"{_sentence_case(rng.choice(self._before))} {_lower_first(question)}"
        if rng.random() < 0.12:
            on_topic = intent.id != OFF_TOPIC and "penstock" not in question.lower()
            endings = self._after + (self._after_topic * 2 if on_topic else [])
            question = _append(question, rng.choice(endings))
        return question

    def _reopen(self, question: str, rng: random.Random) -> str:
        lowered = question.lower()
        fitting = [
            (opening, group)
            for group in self._openings
            for opening in group
            if lowered.startswith(opening + " ")
        ]
        if not fitting:
            return question
        opening, group = rng.choice(fitting)
        return _sentence_case(rng.choice(group)) + question[len(opening) :]

    def _replace_synonyms(self, question: str, rng: random.Random) -> str:
        def replace(match: re.Match[str]) -> str:
            found = match.group(1)
            about_word = question[: match.start()].lower().endswith((" a ", "word ", "noun "))
            if rng.random() < 0.5 or (found.lower() == "penstock" and about_word):
                return found
            return rng.choice(rng.choice(self._by_phrase[found]))

        lowered = _lower_first(question).replace("Penstock", "penstock")
        varied = self._phrase.sub(replace, lowered)
        varied = re.sub(r"(?<![./-])\bpenstock\b(?! (get|up|down|deploy))", "Penstock", varied)
        return _sentence_case(varied)


def _roughen(question: str, rng: random.Random) -> str:
    """Casing, final punctuation and typing errors as people make them."""
    if rng.random() < 0.10:
        question = _mistype(question, rng)
    roll = rng.random()
    if roll < 0.4:
        question = question.lower()
    elif roll < 0.42:
        question = question.upper()
    roll = rng.random()
    if roll < 0.35:
        question = question.rstrip("?.! ") or question
    elif roll < 0.5:
        question = (question.rstrip("?.! ") + rng.choice(["?", "?", ".", "!", "??", " ?"])).strip()
    return question


def _drop_words(question: str, rng: random.Random) -> str:
    words = question.split(" ")
    if len(words) < 4:
        return question
    kept = [
        word
        for word in words
        if rng.random() >= (0.35 if word.lower().strip("?,.") in _DROPPABLE else 0.04)
    ]
    return " ".join(kept) if len(kept) >= 2 else question


def _mistype(question: str, rng: random.Random) -> str:
    spots = [
        at
        for at in range(1, len(question) - 2)
        if question[at - 1 : at + 2].isalpha() and question[at].islower()
    ]
    if not spots:
        return question
    at = rng.choice(spots)
    head, letter, tail = question[:at], question[at], question[at + 1 :]
    return rng.choice(
        [
            head + tail,
            head + letter * 2 + tail,
            head + tail[0] + letter + tail[1:],
            head + rng.choice(_LETTERS) + tail,
        ]
    )


def _append(question: str, ending: str) -> str:
    body = question.rstrip("?.!")
    return f"{body} {ending}{question[len(body) :]}"


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower_first(text: str) -> str:
    first, _, _ = text.partition(" ")
    return text if first[1:] != first[1:].lower() else text[:1].lower() + text[1:]
