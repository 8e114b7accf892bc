"""The guide's text: well-formed, and honest about what was held out."""

import random
from collections import Counter
from pathlib import Path

import pytest

from models.demo.augment import OFF_TOPIC, Augmenter
from models.demo.corpus import CorpusError, Intent, load_corpus, normalized

CORPUS = load_corpus()


def test_corpus_has_enough_intents_and_phrasings() -> None:
    assert len(CORPUS) >= 120
    for intent in CORPUS:
        assert len(intent.questions) >= 6, intent.id
        assert len(intent.held_out) >= 2, intent.id


def test_corpus_ids_and_answers_are_unique() -> None:
    assert len({intent.id for intent in CORPUS}) == len(CORPUS)
    assert len({intent.answer for intent in CORPUS}) == len(CORPUS)


def test_corpus_answers_are_short() -> None:
    for intent in CORPUS:
        assert len(intent.answer.split()) <= 60, intent.id
        assert intent.answer == " ".join(intent.answer.split()), intent.id


def test_corpus_asks_each_question_for_one_intent_only() -> None:
    asked_by: dict[str, set[str]] = {}
    for intent in CORPUS:
        for question in (*intent.questions, *intent.held_out):
            asked_by.setdefault(normalized(question), set()).add(intent.id)
    assert {question: ids for question, ids in asked_by.items() if len(ids) > 1} == {}


def test_held_out_questions_are_not_trained() -> None:
    trained = {normalized(q) for intent in CORPUS for q in intent.questions}
    held_out = Counter(normalized(q) for intent in CORPUS for q in intent.held_out)
    assert trained.isdisjoint(held_out)
    assert max(held_out.values()) == 1


def test_augmenter_never_yields_a_held_out_question() -> None:
    held_out = {normalized(q) for intent in CORPUS for q in intent.held_out}
    augmenter, rng = Augmenter(CORPUS), random.Random(7)
    for intent in CORPUS:
        variants = {normalized(augmenter.vary(intent, rng)) for _ in range(60)}
        assert variants.isdisjoint(held_out), intent.id


def test_augmenter_varies_and_repeats_with_its_seed() -> None:
    augmenter = Augmenter(CORPUS)
    off_topic = next(intent for intent in CORPUS if intent.id == OFF_TOPIC)
    first, second = (
        [augmenter.vary(off_topic, rng) for _ in range(50)]
        for rng in (random.Random(1), random.Random(1))
    )
    assert first == second
    assert len(set(first)) > 40


def test_augmenter_draws_as_written_when_every_variant_is_held_out() -> None:
    only = Intent(id="hello", answer="Hello!", questions=("Hi",), held_out=("hi!", "HI?"))
    assert Augmenter((only,)).vary(only, random.Random(0)) == "Hi"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("id: x", "expected a list"),
        ("- {id: x, answer: y}", "exactly the fields"),
        ("- {id: x, answer: y, questions: [404], held_out: [a]}", "quote every entry of questions"),
    ],
)
def test_load_corpus_refuses_malformed_files(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(CorpusError, match=complaint):
        load_corpus(tmp_path)
