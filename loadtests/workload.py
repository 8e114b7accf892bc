"""What is asked: seeded sessions of requests, made before the run so that none is made during it.

A session is one visitor: its next request may depend on the last answer. Chats of one request,
conversations with a growing shared prefix, agents that call tools, completions, replays of traces.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import orjson
from pydantic import ConfigDict

from loadtests.client import Ask
from loadtests.measure import Outcome
from loadtests.prompts import Prompts
from loadtests.recordings import Trace

STRICT = ConfigDict(extra="forbid")
"""Profiles are read straight into these classes: an unknown key in one is an error."""

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"


class Session(Protocol):
    """One visitor."""

    def next(self, last: Outcome | None) -> Ask | None:
        """The next request, given how the last one went; None where the visitor leaves."""


@dataclass(frozen=True, slots=True)
class Single:
    """A visitor with one request."""

    ask: Ask

    def next(self, last: Outcome | None) -> Ask | None:
        """See Session."""
        return self.ask if last is None else None


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of a prompt or a reply: log-normal around the mean, within bounds.

    A `spread` of 0 is always the mean; it is the standard deviation over the mean.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    mean: int
    spread: float = 0.0
    least: int = 1
    most: int = 1_000_000

    def __post_init__(self) -> None:
        if self.mean < 1 or self.spread < 0 or not 1 <= self.least <= self.most:
            raise ValueError(f"no sensible length: {self}")

    def draw(self, rng: random.Random) -> int:
        """One length."""
        if self.spread == 0:
            return min(max(self.mean, self.least), self.most)
        sigma_2 = math.log(1 + self.spread**2)
        drawn = rng.lognormvariate(math.log(self.mean) - sigma_2 / 2, math.sqrt(sigma_2))
        return min(max(round(drawn), self.least), self.most)


@dataclass(frozen=True, slots=True)
class Target:
    """What all requests of a run have in common."""

    model: str
    stream: bool = True
    ignore_eos: bool = False
    """Only for servers that know it: OpenAI's refuses it."""
    temperature: float | None = 0.0

    def body(self, **fields: object) -> bytes:
        """An encoded request body."""
        common: dict[str, object] = {"model": self.model, "stream": self.stream}
        if self.stream:
            common["stream_options"] = {"include_usage": True}
        if self.ignore_eos:
            common["ignore_eos"] = True
        if self.temperature is not None:
            common["temperature"] = self.temperature
        return orjson.dumps(common | fields)


@dataclass(frozen=True, slots=True)
class Chat:
    """Independent requests; the first `shared` tokens of all of them are the same."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    prompt: Length = field(default_factory=lambda: Length(256))
    output: Length = field(default_factory=lambda: Length(128))
    shared: int = 0
    completion: bool = False
    """Asks /v1/completions instead of the chat route."""
    kind: str = "chat"
    type: Literal["chat"] = "chat"

    def sessions(self, target: Target, prompts: Prompts, seed: int) -> Iterator[Session]:
        """Endless visitors."""
        rng = random.Random(f"{self.kind}/{seed}")  # noqa: S311
        start = prompts.draw(self.shared, rng)
        while True:
            tokens = max(self.prompt.draw(rng), self.shared + prompts.overhead + 1)
            text = prompts.text(tokens, rng, start)
            output = self.output.draw(rng)
            if self.completion:
                body = target.body(prompt=text, max_tokens=output)
            else:
                messages = [{"role": "user", "content": text}]
                body = target.body(messages=messages, max_tokens=output)
            path = COMPLETIONS if self.completion else CHAT
            yield Single(Ask(path, body, self.kind, target.stream, prompt_tokens=tokens))


@dataclass(slots=True)
class Talk:
    """A visitor who goes on; each answer becomes part of the next prompt."""

    target: Target
    kind: str
    turns: list[tuple[list[dict[str, object]], int, float]]  # new messages, output, pause
    tools: list[dict[str, object]] | None = None
    said: list[dict[str, object]] = field(default_factory=list)

    def next(self, last: Outcome | None) -> Ask | None:
        """See Session."""
        if not self.turns or (last is not None and not last.ok):
            return None
        if last is not None:
            self.said.append({"role": "assistant", "content": last.text})
        messages, output, pause_s = self.turns.pop(0)
        self.said += messages
        tools = {"tools": self.tools} if self.tools else {}
        body = self.target.body(messages=self.said, max_tokens=output, **tools)
        delay_s = 0.0 if last is None else pause_s
        return Ask(CHAT, body, self.kind, self.target.stream, keep_text=True, delay_s=delay_s)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Visitors who go on: all share a system prompt, each turn repeats what was said before."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    system: int = 200
    """Tokens of the system prompt, the same for all."""
    turns: Length = field(default_factory=lambda: Length(4))
    prompt: Length = field(default_factory=lambda: Length(64, 0.5))
    """New tokens of each turn."""
    output: Length = field(default_factory=lambda: Length(96, 0.3))
    pause_s: float = 0.0
    """Mean time that a visitor reads before the next turn; exponential."""
    kind: str = "conversation"
    type: Literal["conversation"] = "conversation"

    def sessions(self, target: Target, prompts: Prompts, seed: int) -> Iterator[Session]:
        """Endless visitors."""
        rng = random.Random(f"{self.kind}/{seed}")  # noqa: S311
        system = {"role": "system", "content": prompts.part(self.system, rng)}
        while True:
            turns: list[tuple[list[dict[str, object]], int, float]] = [
                (
                    [{"role": "user", "content": prompts.part(self.prompt.draw(rng), rng)}],
                    self.output.draw(rng),
                    rng.expovariate(1 / self.pause_s) if self.pause_s else 0.0,
                )
                for _ in range(self.turns.draw(rng))
            ]
            turns[0][0].insert(0, dict(system))
            yield Talk(target, self.kind, turns)


TOOL: dict[str, object] = {
    "type": "function",
    "function": {
        "name": "read_file",
        "description": "Reads a file of the project.",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string"}},
            "required": ["path"],
        },
    },
}


@dataclass(frozen=True, slots=True)
class Agent:
    """Agents that loop: a long instruction, then short replies and long results of tools.

    The results are scripted, not called for: an answer of any model, a made-up one included, is
    followed by the next result, so that the load is the same whatever the model says.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    system: int = 600
    rounds: Length = field(default_factory=lambda: Length(6))
    result: Length = field(default_factory=lambda: Length(300, 1.0))
    """Tokens of a tool's result."""
    output: Length = field(default_factory=lambda: Length(40, 0.5))
    tool_s: float = 0.0
    """Mean time that a tool takes; exponential."""
    tools: bool = True
    """Sends the declaration of a tool along; some servers refuse it without a parser."""
    kind: str = "agent"
    type: Literal["agent"] = "agent"

    def sessions(self, target: Target, prompts: Prompts, seed: int) -> Iterator[Session]:
        """Endless agents."""
        rng = random.Random(f"{self.kind}/{seed}")  # noqa: S311
        system = {"role": "system", "content": prompts.part(self.system, rng)}
        while True:
            turns: list[tuple[list[dict[str, object]], int, float]] = []
            for number in range(self.rounds.draw(rng)):
                text = prompts.part(self.result.draw(rng), rng)
                said = "Result of read_file: " if number else "Task: "
                turns.append(
                    (
                        [{"role": "user", "content": said + text}],
                        self.output.draw(rng),
                        rng.expovariate(1 / self.tool_s) if self.tool_s else 0.0,
                    )
                )
            turns[0][0].insert(0, dict(system))
            yield Talk(target, self.kind, turns, [TOOL] if self.tools else None)


def replay(trace: Trace, target: Target, prompts: Prompts, seed: int = 0) -> list[Session]:
    """One visitor for each row of a trace, with prompts of its lengths; where rows have block ids,
    prompts with the same leading ids begin with the same text. Sent as completions, in which
    nothing stands before the prompt that could shift the blocks."""
    rng = random.Random(f"replay/{seed}")  # noqa: S311
    sessions: list[Session] = []
    for row in trace.rows:
        text = _row_text(row.block_ids, row.prompt_tokens, trace.block_tokens, prompts, rng, seed)
        body = target.body(prompt=text, max_tokens=max(1, row.output_tokens))
        sessions.append(
            Single(Ask(COMPLETIONS, body, "replay", target.stream, prompt_tokens=row.prompt_tokens))
        )
    return sessions


def _row_text(
    block_ids: Sequence[int], tokens: int, block_tokens: int, prompts: Prompts,
    rng: random.Random, seed: int,
) -> str:  # fmt: skip
    words: list[str] = []
    for block in block_ids:
        block_rng = random.Random(f"{seed}/{block}")  # noqa: S311
        words += prompts.draw(block_tokens, block_rng)
    return prompts.text(tokens, rng, words[: max(0, tokens - prompts.overhead - 1)])


class Workload(Protocol):
    """A kind of visitor."""

    def sessions(self, target: Target, prompts: Prompts, seed: int) -> Iterator[Session]:
        """Endless visitors."""
