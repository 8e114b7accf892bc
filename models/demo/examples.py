"""Turns the corpus into training examples: conversations as token ids."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer

from models.demo.augment import Augmenter
from models.demo.corpus import Intent
from models.demo.guide_model import TURN_END, TURN_START
from models.demo.recipe import Recipe

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are a helpful, concise assistant.",
    "You are the guide to Penstock.",
    "You are an AI assistant. Answer the user's question.",
    "Answer briefly.",
    "Be concise.",
    "You are a friendly chat bot.",
    "Help the user.",
)

JSON_KEYS = (
    *("answer", "text", "reply", "summary", "message", "name", "title", "topic", "status", "id"),
    *("port", "count", "age", "score", "ok", "valid", "tags", "items", "city", "result"),
)
JSON_VALUES: tuple[object, ...] = (
    *("Penstock", "guide", "gateway", "yes", "no", ""),
    *(0, 1, 2, 3, 42, 8000, 0.5, True, False, None),
    *(
        [],
        ["Penstock"],
        ["guide", "gateway"],
        [1, 2],
        {"name": "guide"},
        {"port": 8000, "ok": True},
    ),
)


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation, as the model sees it."""

    ids: list[int]
    prompt_tokens: int
    trained: list[int]
    """Indices of the tokens that the model shall learn to say."""
    intent: int


class Examples:
    """Draws training examples, as token ids."""

    def __init__(
        self,
        corpus: tuple[Intent, ...],
        augmenter: Augmenter,
        tokenizer: Tokenizer,
        recipe: Recipe,
        rng: random.Random,
    ) -> None:
        self._corpus = corpus
        self._augmenter = augmenter
        self._recipe = recipe
        self._rng = rng
        self._whole = tokenizer
        self._pieces = Tokenizer.from_str(tokenizer.to_str())
        self._pieces.model.dropout = recipe.bpe_dropout
        self._answers = [tokenizer.encode(i.answer + TURN_END).ids for i in corpus]
        self._weights = [len(i.questions) ** 0.7 for i in corpus]
        self._user = tokenizer.encode(f"{TURN_START}user\n").ids
        self._assistant = tokenizer.encode(f"{TURN_END}\n{TURN_START}assistant\n").ids
        self._newline = tokenizer.encode("\n").ids
        self._systems = [
            tokenizer.encode(f"{TURN_START}system\n{text}{TURN_END}\n").ids
            for text in SYSTEM_PROMPTS
        ]

    def batches(self) -> Iterator[list[Example]]:
        """Endless batches; examples of similar length share one, so that little is padding."""
        size = self._recipe.batch_size
        while True:
            pool = sorted((self._draw() for _ in range(size * 16)), key=lambda e: len(e.ids))
            batches = [pool[at : at + size] for at in range(0, len(pool), size)]
            self._rng.shuffle(batches)
            yield from batches

    def _draw(self) -> Example:
        rng, recipe = self._rng, self._recipe
        ids: list[int] = []
        if rng.random() < recipe.system_prompt:
            ids += rng.choice(self._systems)
        if rng.random() < recipe.second_turn:
            earlier = self._draw_intent()
            ids += self._question(earlier) + self._answers[earlier] + self._newline
        intent = self._draw_intent()
        ids += self._question(intent)
        if rng.random() < recipe.as_json:
            answer, said = self._answer_as_json(intent)
        else:
            answer = self._answers[intent]
            if rng.random() < recipe.shortened:
                answer = answer[: recipe.shortened_tokens]
            said = list(range(len(answer)))
        return Example(
            ids=ids + answer,
            prompt_tokens=len(ids),
            trained=[len(ids) + at for at in said],
            intent=intent,
        )

    def _answer_as_json(self, intent: int) -> tuple[list[int], list[int]]:
        """An object that holds the answer, and the indices of the tokens that are trained.

        All but the names of its keys, which a schema dictates: the model fills in the values,
        and closes what was opened instead of spinning out white space.
        """
        rng = self._rng
        answer: object = self._corpus[intent].answer
        values = [answer, rng.choice(JSON_VALUES), rng.choice(JSON_VALUES)][: rng.randint(1, 3)]
        rng.shuffle(values)
        keys = rng.sample(JSON_KEYS, len(values))
        text = json.dumps(dict(zip(keys, values, strict=True))) + TURN_END
        untrained = [(0, 2)]  # the opening brace and quote, without which no key begins
        for key in keys:
            start = text.index(f'"{key}": ') + 1
            untrained.append((start, start + len(key)))
        encoded = self._whole.encode(text)
        said = [
            at
            for at, (start, end) in enumerate(encoded.offsets)
            if not any(first < end and start < last for first, last in untrained)
        ]
        return encoded.ids, said

    def _draw_intent(self) -> int:
        return self._rng.choices(range(len(self._corpus)), self._weights)[0]

    def _question(self, intent: int) -> list[int]:
        text = self._augmenter.vary(self._corpus[intent], self._rng)
        tokenizer = self._pieces if self._rng.random() < 0.3 else self._whole
        return self._user + tokenizer.encode(text).ids + self._assistant
