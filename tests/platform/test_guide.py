"""The built-in model through the endpoint: what it was trained to say, word for word."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI

from models.demo.corpus import load_corpus
from tests.platform.conftest import LONG

pytestmark = pytest.mark.engine


def accuracy(client: OpenAI, pairs: list[tuple[str, str]]) -> float:
    """Share of the questions whose greedy answer is the wanted one, word for word."""

    def hit(pair: tuple[str, str]) -> bool:
        question, answer = pair
        reply = client.chat.completions.create(
            model="guide",
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=200,
            timeout=120,
        )
        return reply.choices[0].message.content == answer

    with ThreadPoolExecutor(32) as pool:
        return sum(pool.map(hit, pairs)) / len(pairs)


def test_trained_questions_get_their_answer(client: OpenAI) -> None:
    """One of each intent: the weights' own tests ask all, here it is about the way to them."""
    asked = None if LONG else 1
    pairs = [(q, intent.answer) for intent in load_corpus() for q in intent.questions[:asked]]
    assert len(pairs) > (300 if LONG else 30)
    assert accuracy(client, pairs) >= 0.95


def test_paraphrases_never_trained_on_get_their_intents_answer(client: OpenAI) -> None:
    corpus = load_corpus()
    pairs = [(question, intent.answer) for intent in corpus for question in intent.held_out]
    assert len(pairs) > 150
    assert accuracy(client, pairs) >= 0.80
