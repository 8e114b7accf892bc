"""The routes through which tenants reach engines: this table, and nothing else.

Whatever route vLLM has that does not stand here (`/tokenizer_info`, `/metrics`, `/inference/...`,
`/v1/load_lora_adapter`, dev and admin routes) cannot be reached through the gateway.
"""

from dataclasses import dataclass
from enum import Enum, auto

import orjson

from models.errors import BadRequestError, BodyTooLargeError
from serving.gateway import checks, fields
from serving.gateway.calls import Reading
from serving.gateway.checks import Check
from serving.gateway.errors import Shape
from serving.gateway.fields import JsonObject, encode_json, keep_allowed
from serving.gateway.forms import File, new_boundary, read_form, write_form
from serving.gateway.media import check_urls

MAX_VALUES = 1_000_000
"""In one body. A million empty objects are 3 MB of JSON, 70 MiB in memory and a quarter of a second
in which nobody else is served; a prompt given in tokens has hardly more than a model's context."""

OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class Body(Enum):
    """What the body of a route may hold; each has a cap of its own."""

    TEXT = auto()  # JSON
    MEDIA = auto()  # JSON with images, sounds or videos as data URLs
    FORM = auto()  # a form with a file


@dataclass(frozen=True, slots=True)
class Operation:
    """One of the routes that lead to an engine; the path is the same on both sides."""

    path: str
    allowed: frozenset[str]
    check: Check
    body: Body = Body.TEXT
    shape: Shape = Shape.OPENAI
    generates: bool = True  # the answer is made of tokens
    asks_usage: bool = False  # knows `stream_options`
    salted: bool = True  # knows `cache_salt`

    def read(
        self,
        body: bytes,
        content_type: str = "application/json",
        domains: frozenset[str] = frozenset(),
    ) -> Reading:
        """Understands a body.

        Args:
            body: As it came.
            content_type: Of the body; JSON is read whatever it says, as OpenAI does.
            domains: Hosts of which media may be fetched.

        Raises:
            BadRequestError: Naming the field at fault in `param`.
        """
        if self.body is Body.FORM:
            return self._read_form(body, content_type)
        given = keep_allowed(_parse(body), self.allowed)
        model = _model_of(given)
        urls = self.check(given)
        check_urls(urls, domains, "messages")
        return Reading(
            model=model,
            fields=given,
            limits=OUTPUT_LIMITS if self.generates else (),
            encode=encode_json,
            asks_usage=self.asks_usage,
            salted=self.salted,
            urls=tuple(urls),
        )

    def _read_form(self, body: bytes, content_type: str) -> Reading:
        given = keep_allowed(read_form(body, content_type), self.allowed)
        if not isinstance(given.get("file"), File):
            raise BadRequestError("file is required", param="file")
        for name, value in given.items():
            if isinstance(value, File) and name != "file":
                raise BadRequestError(f"{name} must not be a file", param=name)
        boundary = new_boundary()
        return Reading(
            model=_model_of(given),
            fields=given,
            limits=OUTPUT_LIMITS,
            encode=lambda sent: write_form(sent, boundary),
            content_type=f"multipart/form-data; boundary={boundary}",
            salted=False,
        )


def _parse(body: bytes) -> JsonObject:
    if len(body) > MAX_VALUES and body.count(b",") > MAX_VALUES:
        raise BodyTooLargeError(f"the body has more than {MAX_VALUES:,} values, or commas")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequestError(f"the body is not valid JSON: {exc}") from exc
    if not isinstance(parsed, dict):
        raise BadRequestError("the body must be a JSON object")
    return parsed


def _model_of(given: JsonObject) -> str:
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequestError("model must be the name of a model", param="model")
    return model


def _check_nothing(given: JsonObject) -> list[str]:
    return []


CHAT = Operation(
    "/v1/chat/completions", fields.CHAT, checks.check_chat, Body.MEDIA, asks_usage=True
)
COMPLETION = Operation(
    "/v1/completions", fields.COMPLETION, checks.check_completion, asks_usage=True
)
RESPONSES = Operation("/v1/responses", fields.RESPONSES, checks.check_response, Body.MEDIA)
MESSAGES = Operation(
    "/v1/messages", fields.MESSAGES, checks.check_anthropic, Body.MEDIA, Shape.ANTHROPIC
)
COUNT_TOKENS = Operation(
    "/v1/messages/count_tokens", fields.COUNT_TOKENS, checks.check_anthropic_count, Body.MEDIA,
    Shape.ANTHROPIC, generates=False, salted=False,
)  # fmt: skip

OPERATIONS = (
    CHAT,
    COMPLETION,
    RESPONSES,
    MESSAGES,
    COUNT_TOKENS,
    Operation("/v1/embeddings", fields.EMBEDDING, checks.check_embedding, generates=False),
    *(
        Operation(path, fields.RERANK, checks.check_rerank, generates=False)
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    ),
    *(
        Operation(path, fields.SCORE, checks.check_score, generates=False)
        for path in ("/score", "/v1/score")
    ),
    Operation("/tokenize", fields.TOKENIZE, checks.check_tokenize, generates=False, salted=False),
    Operation(
        "/detokenize", fields.DETOKENIZE, checks.check_detokenize, generates=False, salted=False
    ),
    Operation(
        "/v1/audio/transcriptions", fields.TRANSCRIPTION, _check_nothing, Body.FORM, salted=False
    ),
    Operation(
        "/v1/audio/translations", fields.TRANSLATION, _check_nothing, Body.FORM, salted=False
    ),
)
"""Every route that leads to an engine."""
