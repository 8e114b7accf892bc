"""Several kinds of visitors, by weight."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from loadtests.dialogues import Dialogues
from loadtests.embeddings import Embeddings
from loadtests.prompts import Prompts
from loadtests.workload import STRICT, Agent, Chat, Conversation, Session, Target


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of visitor and how often it comes."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    weight: float
    workload: Chat | Conversation | Agent | Dialogues | Embeddings


@dataclass(frozen=True, slots=True)
class Mix:
    """Several kinds of visitors by weight."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    parts: tuple[Part, ...]
    type: Literal["mix"] = "mix"

    def sessions(self, target: Target, prompts: Prompts, seed: int) -> Iterator[Session]:
        """Endless visitors."""
        rng = random.Random(f"mix/{seed}")  # noqa: S311
        sources = [
            part.workload.sessions(target, prompts, seed + number)
            for number, part in enumerate(self.parts)
        ]
        weights = [part.weight for part in self.parts]
        while True:
            yield next(rng.choices(sources, weights)[0])
