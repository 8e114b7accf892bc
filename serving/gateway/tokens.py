"""Finds in an engine's answer how many tokens it took, without parsing the answer.

Inside JSON a quote in a text is escaped, so that `"usage":` stands for nothing but the field.
"""

import json
from dataclasses import dataclass

FIELD = b'"usage"'

MAX_BYTES = 4096
"""Longer is no usage object."""

DECODER = json.JSONDecoder()

JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an engine says that one answer took; the prompt counts whole, cached part included."""

    prompt: int
    completion: int
    cached: int = 0  # of the prompt
    reasoning: int = 0  # of the completion


def last_usage(data: bytes) -> Tokens | None:
    """The last usage that an answer, or a part of a stream, speaks of; None where it does not.

    Reads the shapes of OpenAI (chat, completions, responses, embeddings) and of Anthropic, whose
    `input_tokens` leave out what was cached.
    """
    at = data.rfind(FIELD)
    while at >= 0:
        if (usage := _object_after(data, at + len(FIELD))) is not None:
            return _tokens(usage)
        at = data.rfind(FIELD, 0, at)
    return None


def _object_after(data: bytes, at: int) -> JsonObject | None:
    text = data[at : at + MAX_BYTES].decode("utf-8", "replace").lstrip()
    if not text.startswith(":"):
        return None
    try:
        found, _ = DECODER.raw_decode(text[1:].lstrip())
    except (json.JSONDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _tokens(usage: JsonObject) -> Tokens | None:
    if "input_tokens" in usage or "output_tokens" in usage:
        return _tokens_of_newer_shape(usage)
    completion = _number(usage, "completion_tokens")
    if "prompt_tokens" in usage:
        cached = _number(_nested(usage, "prompt_tokens_details"), "cached_tokens")
        reasoning = _number(_nested(usage, "completion_tokens_details"), "reasoning_tokens")
        return Tokens(_number(usage, "prompt_tokens"), completion, cached, reasoning)
    if "total_tokens" in usage:
        return Tokens(max(0, _number(usage, "total_tokens") - completion), completion)
    return None


def _tokens_of_newer_shape(usage: JsonObject) -> Tokens:
    """OpenAI's responses and Anthropic's messages share two names and differ in their meaning."""
    prompt, completion = _number(usage, "input_tokens"), _number(usage, "output_tokens")
    reasoning = _number(_nested(usage, "output_tokens_details"), "reasoning_tokens")
    if "input_tokens_details" in usage:
        cached = _number(_nested(usage, "input_tokens_details"), "cached_tokens")
        return Tokens(prompt, completion, cached, reasoning)
    cached = _number(usage, "cache_read_input_tokens")
    created = _number(usage, "cache_creation_input_tokens")
    return Tokens(prompt + cached + created, completion, cached, reasoning)


def _number(fields: JsonObject, name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _nested(fields: JsonObject, name: str) -> JsonObject:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}
