"""Reads of a request's prompt what queue and balancer want: how long it is, and how it begins."""

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

PREFIX_BYTES = 8192
"""As much of a prompt's beginning tells which engine has seen it before: some 2,000 tokens."""

BYTES_A_TOKEN = 4
"""For prompts that are given in tokens."""

PROMPT_FIELDS = ("tools", "system", "instructions", "prompt", "input", "messages", "text_1",
                 "query", "text_2", "queries", "documents")  # fmt: skip
"""Where prompts stand, in the order in which chat templates put them."""

JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is known of a prompt."""

    size: int  # bytes of text; media count nothing
    prefix: bytes


def count_answers(fields: JsonObject) -> int:
    """How many answers a request asks for: `n` to each of its prompts."""
    n, prompt, prompts = fields.get("n"), fields.get("prompt"), 1
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompts = len(prompt)
    return prompts * (n if isinstance(n, int) else 1)


def read_prompt(fields: JsonObject) -> Prompt:
    """Walks through the texts of a request."""
    size = 0
    head: list[str] = []
    missing = PREFIX_BYTES
    for text in _texts(fields):
        size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        if missing > 0:
            head.append(text[:missing])
            missing -= len(head[-1])
    return Prompt(size, "\x1f".join(head).encode("utf-8", "replace")[:PREFIX_BYTES])


def _texts(fields: JsonObject) -> Iterator[str]:
    for name in PROMPT_FIELDS:
        value = fields.get(name)
        if not value:
            continue
        if name == "tools":
            yield orjson.dumps(value).decode()
        elif name == "messages" and isinstance(value, list):
            for message in value:
                if isinstance(message, dict):
                    yield from _texts_of_message(message)
        else:
            yield from _texts_in(value)


def _texts_of_message(message: JsonObject) -> Iterator[str]:
    role = message.get("role")
    if isinstance(role, str):
        yield role
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif content is not None:
        yield from _texts_in(content)
    if calls := message.get("tool_calls"):
        yield orjson.dumps(calls).decode()


def _texts_in(value: object) -> Iterator[str]:
    """Strings, lists of them, lists of tokens, and parts with a text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        if value and isinstance(value[0], int):
            yield from _tokens_as_text(value)
            return
        for part in value:
            yield from _texts_in(part)
    elif isinstance(value, dict):
        for name in ("role", "text", "content"):
            if name in value:
                yield from _texts_in(value[name])


def _tokens_as_text(tokens: list[object]) -> Iterator[str]:
    """Each token as BYTES_A_TOKEN characters, so that equal beginnings stay equal."""
    for at in range(0, len(tokens), PREFIX_BYTES):
        part = tokens[at : at + PREFIX_BYTES]
        yield "".join(str(token)[-BYTES_A_TOKEN:].rjust(BYTES_A_TOKEN, "_") for token in part)
