"""Parses a tenant's body once, and refuses what no engine should be woken for."""

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from models.errors import BadRequestError

MAX_N = 128
"""Answers that one request may ask for, as at OpenAI; each of them takes a place in the engine."""

ENGINE_INTERNAL = (
    "priority", "cache_salt", "kv_transfer_params", "ec_transfer_params", "request_id",
    "chat_template",
)  # fmt: skip
"""Fields of vLLM's API by which one tenant could reach into others' requests or the engine."""

ROLES = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
"""OpenAI's. vLLM hands any word to the chat template, most of which then render nonsense."""

MAY_SAY_NOTHING = frozenset({"assistant", "function"})
"""Roles whose messages may have no content: an assistant's tool calls stand for themselves."""

JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model, as far as the gateway needs to understand it."""

    model: str
    stream: bool
    body: bytes  # goes to the engine as it came


@dataclass(frozen=True, slots=True)
class Operation:
    """One of the routes that lead to an engine; the path is the same on both sides."""

    path: str
    check: Callable[[JsonObject], None]

    def parse(self, body: bytes) -> Call:
        """Understands a body.

        Raises:
            BadRequestError: Naming the field at fault in `param`.
        """
        try:
            fields = orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise BadRequestError(f"the body is not valid JSON: {exc}") from exc
        if not isinstance(fields, dict):
            raise BadRequestError("the body must be a JSON object")
        model = fields.get("model")
        if not isinstance(model, str) or not model:
            raise BadRequestError("model must be the name of a model", param="model")
        stream = fields.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise BadRequestError("stream must be true or false", param="stream")
        self.check(fields)
        return Call(model=model, stream=bool(stream), body=body)


def check_chat(fields: JsonObject) -> None:
    """Checks the fields of a chat completion.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("messages must be a list of at least one message", param="messages")
    for place, message in enumerate(messages):
        _check_message(message, f"messages.{place}")
    _check_common(fields)
    template = fields.get("chat_template_kwargs")
    if isinstance(template, dict) and template.get("chat_template") is not None:
        raise _not_for_tenants("chat_template_kwargs.chat_template")


def check_completion(fields: JsonObject) -> None:
    """Checks the fields of a text completion.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    prompt = fields.get("prompt")
    if not isinstance(prompt, str | list) or prompt == []:
        raise BadRequestError(
            "prompt must be a string, or a list of strings or tokens", param="prompt"
        )
    _check_common(fields)


def _check_message(message: object, param: str) -> None:
    if not isinstance(message, dict):
        raise BadRequestError("each message must be an object", param=param)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        known = ", ".join(sorted(ROLES))
        raise BadRequestError(f"a message's role must be one of {known}", param=f"{param}.role")
    content = message.get("content")
    if not isinstance(content, str | list) and role not in MAY_SAY_NOTHING:
        raise BadRequestError(
            f"a message of role {role} needs content: a string or a list of parts",
            param=f"{param}.content",
        )


def _check_common(fields: JsonObject) -> None:
    for name in ENGINE_INTERNAL:
        if fields.get(name) is not None:
            raise _not_for_tenants(name)
    for name in ("max_tokens", "max_completion_tokens", "n"):
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BadRequestError(f"{name} must be a whole number of at least 1", param=name)
        if name == "n" and value > MAX_N:
            raise BadRequestError(f"n must be at most {MAX_N}", param=name)


def _not_for_tenants(name: str) -> BadRequestError:
    return BadRequestError(f"{name} may not be set through this endpoint", param=name)


OPERATIONS = (
    Operation("/v1/chat/completions", check_chat),
    Operation("/v1/completions", check_completion),
)
