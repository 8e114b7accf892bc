"""Which of the tokens that an engine makes are reasoning, told as they are made; imports no vLLM.

vLLM counts them when an answer is over, and tells them in its usage: an answer that was cut has
none. The recorder needs the count after each token, so it goes by ids: by the marks that a
reasoning parser names, or by the channels of gpt-oss's answers. What a prompt left open counts,
too: DeepSeek-R1's template ends with `<think>`, and vLLM 0.32 itself then tells of no reasoning.

A parser whose marks are no single tokens (`granite`, `hunyuan_a13b`, `olmo3`) gives no count.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from serving.logs import get_logger

KINDS_KEPT = 64
KEY_CHARS_MAX = 2000
"""Of the arguments of a template, beyond which their parser is not kept."""

HARMONY = "openai_gptoss"
"""The parser of gpt-oss, which knows nothing but that it is one."""

log = get_logger("penstock.engine")


class Reader(Protocol):
    """One answer, read on and on."""

    def count(self, token_ids: Sequence[int]) -> int:
        """How many of the next tokens are reasoning; marks are none."""


@dataclass(frozen=True, slots=True)
class Marks:
    """By which tokens reasoning begins and ends."""

    opens: frozenset[int]
    closes: frozenset[int]
    from_start: bool  # an answer begins with it, without a mark

    def reader(self, prompt_ids: Sequence[int], ended: bool) -> "Marked":
        """The reader of an answer to a prompt; `ended` where that shuts reasoning off."""
        return Marked(self, not ended and (self.from_start or self._left_open(prompt_ids)))

    def _left_open(self, prompt_ids: Sequence[int]) -> bool:
        for token_id in reversed(prompt_ids):
            if token_id in self.opens:
                return True
            if token_id in self.closes:
                return False
        return False


@dataclass(slots=True)
class Marked:
    """An answer with marks."""

    marks: Marks
    is_open: bool

    def count(self, token_ids: Sequence[int]) -> int:
        """As `Reader` says."""
        found, opens, closes = 0, self.marks.opens, self.marks.closes
        for token_id in token_ids:
            if token_id in closes:
                self.is_open = False
            elif token_id in opens:
                self.is_open = True
            else:
                found += self.is_open
        return found


@dataclass(frozen=True, slots=True)
class Channels:
    """The marks of gpt-oss: messages with a header that names a channel, and maybe a recipient."""

    start: int
    channel: int
    message: int
    ends: frozenset[int]
    decode: Callable[[list[int]], str]

    def reader(self) -> "Channeled":
        """The reader of an answer; its prompt ends within a header."""
        return Channeled(self)


@dataclass(slots=True)
class Channeled:
    """An answer in channels."""

    marks: Channels
    is_open: bool = False
    header: list[int] | None = field(default_factory=list)  # None: within a message's content

    def count(self, token_ids: Sequence[int]) -> int:
        """As `Reader` says."""
        found, marks = 0, self.marks
        for token_id in token_ids:
            if token_id == marks.start:
                self.is_open, self.header = False, []
            elif token_id in marks.ends:
                self.is_open, self.header = False, None
            elif token_id == marks.message:
                header, self.header = self.header or [], None
                self.is_open = is_reasoning(marks.decode(header))
            elif token_id == marks.channel:
                self.is_open, self.header = False, [*(self.header or []), token_id]
            elif self.header is not None:
                self.header.append(token_id)
            else:
                found += self.is_open
        return found


def is_reasoning(header: str) -> bool:
    """Whether a message of gpt-oss is: by vLLM's rule the channel `analysis`, and what it comments
    to a tool."""
    before, _, after = header.partition("<|channel|>")
    words = after.replace("<|constrain|>", " ").split()
    channel = words[0] if words else ""
    to_tool = any(word.startswith("to=") for word in (*before.split(), *words))
    return channel == "analysis" or (channel == "commentary" and to_tool)


Kind = Marks | Channels

Make = Callable[[Any, Mapping[str, Any]], Any]
"""Makes vLLM's parser for a tokenizer and the arguments of a request's template."""


class Readers:
    """Makes a reader for each answer of one engine.

    Args:
        name: Of the reasoning parser, as vLLM knows it.
        make: Makes one.
    """

    def __init__(self, name: str, make: Make) -> None:
        self._name = name
        self._make = make
        self._kinds: dict[str, tuple[Any, Kind | None]] = {}
        self._failed = False

    def reader(
        self,
        tokenizer: Any,
        arguments: Mapping[str, Any],
        prompt_ids: Sequence[int],
        ended: bool | None,
    ) -> Reader | None:
        """A reader for the answer to a prompt; None where nothing can be told.

        Args:
            tokenizer: The engine's.
            arguments: What the request gives its parser: those of its template.
            prompt_ids: The prompt.
            ended: What vLLM says of the prompt: False where it leaves room for reasoning, True
                where it ends it or the tenant does not want to see it.
        """
        try:
            parser, kind = self._kind(tokenizer, arguments)
            if kind is None:
                return None
            if isinstance(kind, Channels):
                return kind.reader()
            shut = ended is not False and bool(parser.is_reasoning_end(list(prompt_ids)))
            return kind.reader(prompt_ids, shut)
        except Exception as exc:  # noqa: BLE001, a count must not cost the request
            if not self._failed:
                log.error("reasoning_not_counted", parser=self._name, reason=repr(exc))
            self._failed = True
            return None

    def _kind(self, tokenizer: Any, arguments: Mapping[str, Any]) -> tuple[Any, Kind | None]:
        key = repr(arguments)
        known = self._kinds.get(key)
        if known is None:
            # Some parsers write into what they are given.
            own = {n: dict(v) if isinstance(v, Mapping) else v for n, v in arguments.items()}
            parser = self._make(tokenizer, own)
            channels = channels_of(tokenizer) if self._name == HARMONY else None
            known = parser, channels or marks_of(parser)
            if len(key) <= KEY_CHARS_MAX:
                if len(self._kinds) >= KINDS_KEPT:
                    del self._kinds[next(iter(self._kinds))]
                self._kinds[key] = known
        return known


def marks_of(parser: Any) -> Marks | None:
    """The marks of a parser that was not used yet; None where it has none that are single tokens.

    Whether reasoning goes without a mark is seen by what the parser makes of an answer's first
    word.
    """
    vocabulary = parser.vocab
    opens = frozenset({vocabulary.get(parser.reasoning_start_str)} - {None})
    # Those of some parsers end it by the call of a tool, too.
    others: frozenset[int] = getattr(parser, "reasoning_end_token_ids", frozenset())
    closes = frozenset({vocabulary.get(parser.reasoning_end_str), *others} - {None})
    if not closes:
        return None
    word = vocabulary.get("x", 0)
    delta = parser.extract_reasoning_streaming("", "x", "x", [], [word], [word])
    return Marks(opens, closes, bool(delta is not None and delta.reasoning))


def channels_of(tokenizer: Any) -> Channels | None:
    """The marks of a gpt-oss's tokenizer; None where it has not all of them."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    needed = [vocabulary.get(f"<|{name}|>") for name in ("start", "channel", "message", "end")]
    start, channel, message, end = needed
    if start is None or channel is None or message is None or end is None:
        return None
    others = (vocabulary.get("<|return|>"), vocabulary.get("<|call|>"))
    ends = frozenset({end, *(one for one in others if one is not None)})
    return Channels(start, channel, message, ends, tokenizer.decode)


def parser_named_in(arguments: Sequence[str]) -> str | None:
    """The reasoning parser on a command line of vLLM's."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--reasoning-parser", "--reasoning_parser")
    named: str | None = reader.parse_known_args(list(arguments))[0].reasoning_parser
    return named
