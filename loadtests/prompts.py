"""Makes texts that measure an exact number of tokens by the tokenizer of the server under test.

Words are looked for that are one token each wherever they stand between other words; a text of k
such words is then k tokens long, which is checked once for each run, not assumed. The server
counts: by `/tokenize` where it has that, else by the usage that a request for one token reports,
which any OpenAI-compatible server can do.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from loadtests.client import Caller, ServerError

CANDIDATES = tuple(
    "the of and to in is you that it he was for on are as with his they at be this have from or "  # noqa: SIM905
    "one had by word but not what all were we when your can said there use an each which she do "
    "how their if will up other about out many then them these so some her would make like him "
    "into time has look two more write go see number no way could people my than first water been "
    "call who oil its now find long down day did get come made may part over new sound take only "
    "little work know place year live me back give most very after thing our just name good man "
    "think say great where help through much before line right too mean old any same tell boy "
    "follow came want show also around form three small set put end does another well large must "
    "big even such because turn here why ask went men read need land different home us move try "
    "kind hand picture again change off play air away house point page letter mother answer found "
    "a b c d e f g h i j k l m n o p q r s t u v w x y z".split()
)

ENOUGH_WORDS = 64
"""With so many words no two random prompts share a block of 16 tokens by chance."""

ModelT = TypeVar("ModelT", bound=BaseModel)

Count = Callable[[str], Awaitable[int]]
"""Counts the tokens of a prompt in which the text stands, its template's tokens included."""


class Prompts:
    """Makes texts of an exact length.

    Every text begins with the same word: at the beginning, with no space before it, a word may be
    another number of tokens, and what that one takes there is part of the overhead.

    Args:
        words: Words that are one token each after another word; the first one begins all texts.
        overhead: Tokens that a prompt has beyond its words: template, beginning of text.
    """

    def __init__(self, words: Sequence[str], overhead: int) -> None:
        self.words = tuple(words)
        self.overhead = overhead

    def text(self, tokens: int, rng: random.Random, start: Sequence[str] = ()) -> str:
        """A text that makes the whole prompt `tokens` long, and begins with `start` after its first
        word; longer only where `start` does not fit."""
        missing = max(0, tokens - self.overhead - 1 - len(start))
        return " ".join([self.words[0], *start, *self.draw(missing, rng)])

    def part(self, tokens: int, rng: random.Random) -> str:
        """A text that adds about `tokens` to a prompt: what surrounds it may add some."""
        return " ".join(self.draw(tokens, rng))

    def draw(self, count: int, rng: random.Random) -> list[str]:
        """Words of one token each, after another word."""
        return rng.choices(self.words, k=count)


async def learn(count: Count, candidates: Sequence[str] = CANDIDATES) -> Prompts:
    """Finds the words and the overhead by asking the server's tokenizer.

    Raises:
        ServerError: The tokenizer has too few words of one token, or does not add up.
    """
    anchor = await _anchor(count, candidates)
    base = await count(f"{anchor} {anchor}")
    words = [anchor]
    others = [word for word in candidates if word != anchor]
    for start in range(0, len(others), 16):
        if len(words) >= ENOUGH_WORDS:
            break
        words += await _single(count, others[start : start + 16], anchor, base)
    if len(words) < 8:
        raise ServerError(f"the tokenizer has only {len(words)} of the words as one token")
    made = Prompts(words, base - 2)
    for tokens in (64, 500):
        text = made.text(tokens, random.Random(tokens))  # noqa: S311
        counted = await count(text)
        if counted != max(tokens, made.overhead + 1):
            raise ServerError(f"a prompt made for {tokens} tokens measures {counted}")
    return made


async def _anchor(count: Count, candidates: Sequence[str]) -> str:
    """A word that adds exactly one token each time it is repeated."""
    for word in candidates:
        one, two, five = [await count(" ".join([word] * times)) for times in (1, 2, 5)]
        if (two - one, five - two) == (1, 3):
            return word
    raise ServerError("the tokenizer has no word that is always one token")


async def _single(count: Count, words: list[str], anchor: str, base: int) -> list[str]:
    """Those of `words` that are one token, found by halving: a set that adds up is accepted as
    a whole."""
    if not words:
        return []
    text = f"{anchor} {' '.join(words)} {anchor}"
    surplus = await count(text) - base - len(words)
    if surplus == 0:
        return list(words)
    if len(words) == 1:
        return []
    half = len(words) // 2
    return [
        *await _single(count, words[:half], anchor, base),
        *await _single(count, words[half:], anchor, base),
    ]


async def counter(client: Caller, model: str, path: str) -> Count:
    """How this server counts the tokens of a prompt that is sent to `path`: of a chat, a completion
    or an embedding.

    Raises:
        ServerError: It can do neither.
    """

    def fields(text: str) -> dict[str, object]:
        if path.endswith("/chat/completions"):
            return {"model": model, "messages": [{"role": "user", "content": text}]}
        return {"model": model, "prompt": text}

    async def by_tokenize(text: str) -> int:
        answer = await client.call("/tokenize", fields(text))
        return _read(_Tokenized, *answer).count

    async def by_usage(text: str) -> int:
        if path.endswith("/embeddings"):
            asked: dict[str, object] = {"model": model, "input": text}
        else:
            asked = fields(text) | {"max_tokens": 1}
        return _read(_Answer, *await client.call(path, asked)).usage.prompt_tokens

    try:
        await by_tokenize("a")
    except ServerError:
        await by_usage("a")
        return by_usage
    return by_tokenize


class _Tokenized(BaseModel):
    count: int


class _Usage(BaseModel):
    prompt_tokens: int


class _Answer(BaseModel):
    usage: _Usage


def _read(model: type[ModelT], status: int, body: bytes) -> ModelT:
    """Raises: ServerError where the answer is an error, or not what was asked for."""
    text = body[:300].decode(errors="replace")
    if status != 200:
        raise ServerError(f"the server answered {status}: {text}")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise ServerError(f"the server's answer lacks a count of tokens: {text}") from error
