"""OpenAI's API as the fake engine speaks it: requests read and checked, answers rendered.

The tokenizer is the simplest that can be counted by hand: a word between white space is a token.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtests.fake.blocks import Token

VOCABULARY = tuple(
    "the gate opens when water comes and closes when it has gone so that no drop is lost "  # noqa: SIM905
    "and each turbine turns as fast as its river allows while the keeper sleeps in peace".split()
)
"""Words of all replies, safe inside JSON as they are."""


DONE = b"data: [DONE]\n\n"
_MARKER = "\u0000"


class ApiError(Exception):
    """An error that the client sees in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error",
        param: str | None = None, code: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code

    def body(self) -> bytes:
        """The body that OpenAI would send."""
        return orjson.dumps(
            {
                "error": {
                    "message": str(self),
                    "type": self.kind,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )


BodyT = TypeVar("BodyT", bound=BaseModel)


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _StreamOptions(_Model):
    include_usage: bool = False


class _Part(_Model):
    type: str = "text"
    text: str = ""


class _Message(_Model):
    role: str
    content: str | list[_Part] | None = None


class _Generation(_Model):
    model: str
    stream: bool = False
    stream_options: _StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=128)
    seed: int | None = None


class _ChatBody(_Generation):
    messages: Annotated[list[_Message], Field(min_length=1)]
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


class _CompletionBody(_Generation):
    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int | None = Field(default=16, ge=1)


class _TokenizeBody(_Model):
    prompt: str | None = None
    messages: list[_Message] | None = None
    add_generation_prompt: bool = True


@dataclass(frozen=True, slots=True)
class Generation:
    """A checked request for text."""

    chat: bool
    model: str
    prompts: tuple[list[Token], ...]
    n: int
    max_tokens: int | None
    stream: bool
    include_usage: bool
    seed: int | None


def tokens_of(text: str) -> list[Token]:
    """The tokens of a text."""
    return list(text.split())


def _chat_tokens(messages: Sequence[_Message], *, add_generation_prompt: bool) -> list[Token]:
    tokens: list[Token] = []
    for message in messages:
        content = message.content or ""
        if not isinstance(content, str):
            content = " ".join(part.text for part in content)
        tokens += [f"<|{message.role}|>", *content.split(), "<|end|>"]
    return [*tokens, "<|assistant|>"] if add_generation_prompt else tokens


def _parse(body: bytes, model: type[BodyT]) -> BodyT:
    """Raises: ApiError (400), naming the field that is at fault."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise ApiError(400, first["msg"], param=param) from error


def parse_chat(body: bytes) -> Generation:
    """Reads a body of `/v1/chat/completions`.

    Raises:
        ApiError: The body cannot be accepted.
    """
    parsed = _parse(body, _ChatBody)
    return Generation(
        chat=True,
        model=parsed.model,
        prompts=(_chat_tokens(parsed.messages, add_generation_prompt=True),),
        n=parsed.n,
        max_tokens=parsed.max_completion_tokens or parsed.max_tokens,
        stream=parsed.stream,
        include_usage=parsed.stream_options is not None and parsed.stream_options.include_usage,
        seed=parsed.seed,
    )


def parse_completion(body: bytes) -> Generation:
    """Reads a body of `/v1/completions`.

    Raises:
        ApiError: The body cannot be accepted.
    """
    parsed = _parse(body, _CompletionBody)
    prompt = parsed.prompt
    prompts: tuple[list[Token], ...]
    if isinstance(prompt, str):
        prompts = (tokens_of(prompt),)
    elif all(isinstance(part, int) for part in prompt):
        prompts = (list(prompt),)  # type: ignore[arg-type]
    else:
        prompts = tuple(
            tokens_of(part) if isinstance(part, str) else list(part)  # type: ignore[arg-type]
            for part in prompt
        )
    if not prompts or not all(prompts):
        raise ApiError(400, "The prompt cannot be empty.", param="prompt")
    return Generation(
        chat=False,
        model=parsed.model,
        prompts=prompts,
        n=parsed.n,
        max_tokens=parsed.max_tokens,
        stream=parsed.stream,
        include_usage=parsed.stream_options is not None and parsed.stream_options.include_usage,
        seed=parsed.seed,
    )


def tokenize(body: bytes, max_model_len: int) -> bytes:
    """The answer of `/tokenize`, in vLLM's shape.

    Raises:
        ApiError: The body cannot be accepted.
    """
    parsed = _parse(body, _TokenizeBody)
    if parsed.messages is not None:
        tokens = _chat_tokens(parsed.messages, add_generation_prompt=parsed.add_generation_prompt)
    elif parsed.prompt is not None:
        tokens = tokens_of(parsed.prompt)
    else:
        raise ApiError(400, "either prompt or messages is required", param="prompt")
    ids = [zlib.crc32(str(token).encode()) for token in tokens]
    return orjson.dumps({"count": len(ids), "max_model_len": max_model_len, "tokens": ids})


def reply_words(start: int) -> Callable[[int], Token]:
    """An endless reply; equal starts give equal replies."""

    def word(index: int) -> Token:
        return VOCABULARY[(start + index) % len(VOCABULARY)]

    return word


def usage(prompt: int, cached: int, completion: int) -> dict[str, object]:
    """The `usage` object of an answer, in tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class Renderer:
    """Renders the answers to one request; what is the same in each chunk is rendered once."""

    def __init__(self, *, chat: bool, model: str, answer_id: str) -> None:
        self._chat = chat
        self._head: dict[str, object] = {
            "id": answer_id,
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._chunk_head = self._head | ({"object": "chat.completion.chunk"} if chat else {})
        self._templates: dict[tuple[int, str | None], tuple[bytes, bytes]] = {}

    def role_chunk(self, index: int) -> bytes:
        """The first chunk of a chat answer: a role, and no content."""
        delta = {"role": "assistant", "content": ""}
        return self._event({"choices": [self._choice(index, delta=delta, finish=None)]})

    def token_chunk(
        self, index: int, text: str, finish: str | None = None, due_s: float | None = None
    ) -> bytes:
        """A chunk with one token; the last one of a choice also says why it ends."""
        key = (index, finish)
        if key not in self._templates:
            event = self._event({"choices": [self._content(index, _MARKER, finish)]})
            before, after = event.split(orjson.dumps(_MARKER)[1:-1])
            self._templates[key] = (before, after)
        before, after = self._templates[key]
        if due_s is not None:
            after = after.replace(b"}\n\n", b',"penstock_due_s":%.6f}\n\n' % due_s)
        return b"%b%b%b" % (before, text.encode(), after)

    def usage_chunk(self, counted: dict[str, object]) -> bytes:
        """The chunk that carries the usage, and no choice."""
        return self._event({"choices": [], "usage": counted})

    def whole(self, texts: Sequence[str], reasons: Sequence[str],
              counted: dict[str, object] | None) -> bytes:  # fmt: skip
        """The body of an answer that is not streamed."""
        choices = [
            self._choice(
                index,
                **(
                    {"message": {"role": "assistant", "content": text}}
                    if self._chat
                    else {"text": text}
                ),
                finish=reason,
            )
            for index, (text, reason) in enumerate(zip(texts, reasons, strict=True))
        ]
        counts = {} if counted is None else {"usage": counted}
        return orjson.dumps(self._head | {"choices": choices} | counts)

    def _content(self, index: int, text: str, finish: str | None) -> dict[str, object]:
        if self._chat:
            return self._choice(index, delta={"content": text}, finish=finish)
        return self._choice(index, text=text, finish=finish)

    @staticmethod
    def _choice(index: int, finish: str | None, **content: object) -> dict[str, object]:
        return {"index": index, **content, "logprobs": None, "finish_reason": finish}

    def _event(self, fields: dict[str, object]) -> bytes:
        return b"data: %b\n\n" % orjson.dumps(self._chunk_head | fields)
