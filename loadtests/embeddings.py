"""Requests for embeddings: each text an exact number of tokens, several in one request at will."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import orjson
from pydantic import ConfigDict

from loadtests.client import Ask
from loadtests.prompts import Prompts
from loadtests.workload import EMBEDDINGS, STRICT, Length, Session, Single, Target


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Independent requests. An answer comes as a whole: its TTFT is its E2E, and it has no TPOT."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    prompt: Length = field(default_factory=lambda: Length(256))
    """Tokens of each text."""
    batch: int = 1
    """Texts of a request."""
    model: str | None = None
    """In a mix, the model that embeds; its texts have the lengths of the other's tokenizer."""
    kind: str = "embeddings"
    type: Literal["embeddings"] = "embeddings"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError("a request embeds at least one text")

    def sessions(self, target: Target, prompts: Prompts, seed: int) -> Iterator[Session]:
        """Endless visitors."""
        rng = random.Random(f"{self.kind}/{seed}")  # noqa: S311
        while True:
            tokens = [max(self.prompt.draw(rng), prompts.overhead + 1) for _ in range(self.batch)]
            texts = [prompts.text(count, rng) for count in tokens]
            body = orjson.dumps({"model": self.model or target.model, "input": texts})
            wanted = sum(tokens) if self.model is None else None
            yield Single(Ask(EMBEDDINGS, body, self.kind, stream=False, prompt_tokens=wanted))
