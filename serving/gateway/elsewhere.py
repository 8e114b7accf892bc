"""What is different about servers that others run: a manifest's `endpoints`. Pure.

They have no recorder and no account of their steps, may be silent for minutes over one answer, and
say "too many requests" of a quota that is the operator's, not the tenant's. Of an answer that does
not say what it took, the tokens are guessed.
"""

import math

import orjson

from serving.gateway.calls import Call
from serving.gateway.estimates import Estimates
from serving.gateway.tokens import Tokens
from serving.protocol import ModelRoute

SILENT_S = 600.0
"""For so long such a server may say nothing: OpenAI's own client waits no longer by default."""

FULL = frozenset({429, 503})
"""Answers of a server that has no more room."""

REST_S = 1.0
"""It is left alone for so long, where it does not say how long."""

LONGEST_REST_S = 30.0
"""One that wants more is tried again all the same: quotas are raised, too."""

SECRET_CHARS = 8
"""Shorter tokens keep nobody out, and may be words of an answer."""

ANSWERS = ("choices", "content", "output", "text")
"""Where answers stand, in the shapes of OpenAI (chat, completions, responses, transcriptions) and
of Anthropic. What else a server repeats, as a request's tools, it did not make."""

MADE = frozenset({"content", "text", "reasoning", "reasoning_content", "refusal", "thinking",
                  "name", "arguments", "input", "transcript"})  # fmt: skip
"""Fields in there whose texts are made of tokens."""

HEADERS = "accept-encoding: identity\r\nuser-agent: penstock\r\n"
"""An answer is passed on as it comes, but for its encoding; some servers refuse the nameless."""


def is_elsewhere(route: ModelRoute) -> bool:
    """Whether others serve the model."""
    return any(endpoint.external for endpoint in route.endpoints)


def rest_s(retry_after: str | None) -> float:
    """How long a server is left alone that has no more room, by its Retry-After in seconds."""
    try:
        asked_s = float(retry_after or "")
    except ValueError:  # none, or a date
        return REST_S
    return min(LONGEST_REST_S, max(REST_S, asked_s)) if math.isfinite(asked_s) else REST_S


def without_tokens(said: bytes, route: ModelRoute) -> bytes:
    """A server's words without the tokens that such servers are shown: some repeat them."""
    for endpoint in route.endpoints:
        if endpoint.external and len(endpoint.token) >= SECRET_CHARS:
            said = said.replace(endpoint.token.encode(), b"***")
    return said


def tokens_guessed(
    body: bytes, content_type: str, call: Call, prompt: int, estimates: Estimates
) -> Tokens:
    """What a whole answer took that does not say it.

    Args:
        body: The answer.
        content_type: Of the answer.
        call: What was asked for: no answer has more tokens than that.
        prompt: Tokens of the prompt, as guessed.
        estimates: What is known of the model's bytes a token.
    """
    if call.max_tokens == 0:  # as of embeddings: it is not made of tokens
        return Tokens(prompt, 0)
    size, answers = _size_of(body, content_type)
    completion = estimates.prompt(size)  # a text has as many tokens whoever wrote it
    if call.max_tokens is not None:
        completion = min(completion, call.max_tokens * max(answers, call.n))
    return Tokens(prompt, completion)


def _size_of(body: bytes, content_type: str) -> tuple[int, int]:
    """Bytes of text in an answer, and how many answers it is."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return (len(body) if content_type.startswith("text/plain") else 0), 1
    if not isinstance(answer, dict):
        return 0, 1
    size = 0
    left: list[tuple[str, object]] = [
        (name, answer[name]) for name in ANSWERS if isinstance(answer.get(name), str | list)
    ]
    while left:
        name, value = left.pop()
        if isinstance(value, str):
            size += len(value.encode("utf-8", "replace")) if name in MADE else 0
        elif name == "input":  # a tool's arguments, as Anthropic has them
            size += len(orjson.dumps(value))
        elif isinstance(value, dict):
            left.extend(value.items())
        elif isinstance(value, list):
            left.extend((name, one) for one in value)
    choices = answer.get("choices")
    return size, len(choices) if isinstance(choices, list) else 1
