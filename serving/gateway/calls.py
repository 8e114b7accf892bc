"""Parses a tenant's body once, and refuses what no engine should be woken for."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from models.errors import BadRequestError
from serving.gateway.prompts import read_prompt

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

SERVICE_TIERS = frozenset({"auto", "default", "flex", "priority", "scale"})
"""OpenAI's classes of service; the queue knows them, the engine never hears of them."""

SESSION_FIELDS = ("prompt_cache_key", "session_id", "user")
"""Fields by which a tenant ties requests together, the most telling first."""

MAX_SESSION_CHARS = 256

JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model, as far as tolls, queue and balancer need to understand it."""

    model: str
    stream: bool
    body: bytes  # goes to the engine
    max_tokens: int | None = None  # of each answer; None where the tenant did not say
    n: int = 1  # answers asked for
    service_tier: str | None = None  # as the tenant said it: one of SERVICE_TIERS
    prompt_bytes: int = 0  # of the prompt's text; 4 for each token where it is given in tokens
    session: str = ""  # what the tenant says that related requests have in common
    prefix: bytes = b""  # the prompt's beginning, at most PREFIX_BYTES: for prefix affinity
    include_usage: bool = False  # the tenant wants the usage chunk of a stream


@dataclass(frozen=True, slots=True)
class Reading:
    """A tenant's body, understood and checked, and not yet turned into what the engine gets."""

    model: str
    fields: JsonObject

    def call(self, cache_salt: str | None = None, model: str | None = None) -> Call:
        """What goes to an engine: encoded anew, so that nobody downstream can read a duplicate key
        or an odd number in another way than the checks did (0.5 us for 2 KB).

        Args:
            cache_salt: Keeps the prefix cache of one organisation from the others'; None where
                the server knows no such field.
            model: The server's name for the model, where it is another.
        """
        fields = self.fields
        tier = fields.pop("service_tier", None)
        stream = fields.get("stream") is True
        include_usage = _asks_for_usage(fields)
        if stream:
            options = fields.get("stream_options")
            options = dict(options) if isinstance(options, dict) else {}
            if not include_usage:
                options.pop("continuous_usage_stats", None)
            fields["stream_options"] = options | {"include_usage": True}
        if cache_salt is not None:
            fields["cache_salt"] = cache_salt
        if model is not None:
            fields["model"] = model
        prompt = read_prompt(fields)
        limits = (fields.get("max_completion_tokens"), fields.get("max_tokens"))
        n = fields.get("n")
        return Call(
            model=self.model,
            stream=stream,
            body=orjson.dumps(fields),
            max_tokens=next((limit for limit in limits if isinstance(limit, int)), None),
            n=n if isinstance(n, int) else 1,
            service_tier=tier if isinstance(tier, str) else None,
            prompt_bytes=prompt.size,
            session=_session(fields),
            prefix=prompt.prefix,
            include_usage=include_usage,
        )


@dataclass(frozen=True, slots=True)
class Operation:
    """One of the routes that lead to an engine; the path is the same on both sides."""

    path: str
    check: Callable[[JsonObject], None]

    def read(self, body: bytes) -> Reading:
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
        return Reading(model, fields)


@functools.lru_cache(maxsize=4096)
def cache_salt(org_id: str) -> str:
    """What an organisation's prompts are hashed with in the engines' prefix caches."""
    return hashlib.sha256(b"penstock:" + org_id.encode()).hexdigest()[:32]


def _asks_for_usage(fields: JsonObject) -> bool:
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _session(fields: JsonObject) -> str:
    for name in SESSION_FIELDS:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value[:MAX_SESSION_CHARS]
    return ""


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
    tier = fields.get("service_tier")
    if tier is not None and (not isinstance(tier, str) or tier not in SERVICE_TIERS):
        known = ", ".join(sorted(SERVICE_TIERS))
        raise BadRequestError(f"service_tier must be one of {known}", param="service_tier")
    options = fields.get("stream_options")
    if options is not None and (not isinstance(options, dict) or not fields.get("stream")):
        raise BadRequestError(
            "stream_options must be an object, and goes with stream: true", param="stream_options"
        )


def _not_for_tenants(name: str) -> BadRequestError:
    return BadRequestError(f"{name} may not be set through this endpoint", param=name)


OPERATIONS = (
    Operation("/v1/chat/completions", check_chat),
    Operation("/v1/completions", check_completion),
)
