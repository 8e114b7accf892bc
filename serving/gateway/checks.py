"""What of a body is checked before any engine is woken for it, for each kind of request.

Checks of the form that vLLM would answer in an unhelpful way, or not at all; vLLM checks the rest.
Each check gives the media URLs that the body names.
"""

from collections.abc import Callable

from models.errors import BadRequestError
from serving.gateway import bounds
from serving.gateway.fields import JsonObject
from serving.gateway.media import check_parts
from serving.gateway.messages import check_messages

MAX_N = 128
"""Answers that one request may ask for, as at OpenAI; each of them takes a place in the engine."""

SERVICE_TIERS = frozenset({"auto", "default", "flex", "priority", "scale"})
"""OpenAI's classes of service; the queue knows them, the engine never hears of them."""

ANTHROPIC_TIERS = frozenset({"auto", "standard_only"})

TEMPLATE_VALUES = (str, int, float, bool)

Check = Callable[[JsonObject], list[str]]


def check_chat(fields: JsonObject) -> list[str]:
    """Checks a chat completion.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    urls = check_messages(fields)
    _check_common(fields)
    _check_template_kwargs(fields)
    if fields.get("store") is True:
        raise BadRequestError("nothing is stored here: leave `store` out", param="store")
    return urls


def check_completion(fields: JsonObject) -> list[str]:
    """Checks a text completion.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    _check_prompt(fields, "prompt")
    _check_common(fields)
    return []


def check_response(fields: JsonObject) -> list[str]:
    """Checks a request for OpenAI's responses. They are not kept, so none can be continued.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    for name in ("previous_response_id", "conversation", "prompt"):
        if name in fields:
            raise BadRequestError(
                f"{name} needs stored responses, which this platform does not have; send the whole "
                "conversation as input", param=name,
            )  # fmt: skip
    for name in ("store", "background"):
        if fields.get(name) is True:
            raise BadRequestError(f"responses are not stored here: {name} cannot be true",
                                  param=name)  # fmt: skip
    fields["store"] = False  # OpenAI's default is true
    bounds.check_bounds(fields)
    bounds.check_messages(fields, "input")
    _check_tools_of_response(fields)
    _check_stream(fields)
    _check_counts(fields, "max_output_tokens", "max_tool_calls")
    _check_tier(fields, SERVICE_TIERS)
    given = fields.get("input")
    if isinstance(given, str):
        return []
    if not isinstance(given, list) or not given:
        raise BadRequestError("input must be a string or a list of items", param="input")
    urls: list[str] = []
    for place, item in enumerate(given):
        if not isinstance(item, dict):
            raise BadRequestError("each item must be an object", param=f"input.{place}")
        urls.extend(check_parts(item.get("content"), f"input.{place}.content"))
        urls.extend(check_parts(item.get("output"), f"input.{place}.output"))
    return urls


def check_anthropic(fields: JsonObject) -> list[str]:
    """Checks a request of Anthropic's messages.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    if "max_tokens" not in fields:
        raise BadRequestError("max_tokens is required", param="max_tokens")
    _check_stream(fields)
    _check_counts(fields, "max_tokens")
    _check_tier(fields, ANTHROPIC_TIERS)
    bounds.check_bounds(fields)
    return check_anthropic_count(fields)


def check_anthropic_count(fields: JsonObject) -> list[str]:
    """Checks a request to count the tokens of Anthropic's messages.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    urls = check_messages(fields, roles=frozenset({"user", "assistant", "system"}))
    urls.extend(check_parts(fields.get("system"), "system"))
    _check_template_kwargs(fields)
    return urls


def check_embedding(fields: JsonObject) -> list[str]:
    """Checks a request for embeddings.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    if "messages" in fields:
        return check_messages(fields)
    _check_prompt(fields, "input")
    return []


def check_score(fields: JsonObject) -> list[str]:
    """Checks a request for scores of pairs.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    pairs = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"),
             ("data_1", "data_2"))  # fmt: skip
    for pair in pairs:
        if all(name in fields for name in pair):
            return [url for name in pair for url in _check_texts(fields, name)]
    raise BadRequestError("text_1 and text_2 are required", param="text_1")


def check_rerank(fields: JsonObject) -> list[str]:
    """Checks a request to order documents.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    return [url for name in ("query", "documents") for url in _check_texts(fields, name)]


def check_tokenize(fields: JsonObject) -> list[str]:
    """Checks a request for a prompt's tokens.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    _check_template_kwargs(fields)
    bounds.check_tokenized(fields)
    if "messages" in fields:
        return check_messages(fields)
    if not isinstance(fields.get("prompt"), str):
        raise BadRequestError("prompt must be a string", param="prompt")
    return []


def check_detokenize(fields: JsonObject) -> list[str]:
    """Checks a request for the text of tokens.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    if not isinstance(fields.get("tokens"), list):
        raise BadRequestError("tokens must be a list of whole numbers", param="tokens")
    return []


def _check_prompt(fields: JsonObject, name: str) -> None:
    prompt = fields.get(name)
    if not isinstance(prompt, str | list) or prompt == []:
        raise BadRequestError(f"{name} must be a string, or a list of strings or tokens",
                              param=name)  # fmt: skip


def _check_texts(fields: JsonObject, name: str) -> list[str]:
    """One text or several, or objects with `content` parts where the model takes media."""
    value = fields.get(name)
    if isinstance(value, str):
        return []
    if isinstance(value, dict):
        return check_parts(value.get("content"), f"{name}.content")
    if not isinstance(value, list) or not value:
        raise BadRequestError(f"{name} must be a text or a list of texts", param=name)
    urls: list[str] = []
    for place, one in enumerate(value):
        if isinstance(one, dict):
            urls.extend(check_parts(one.get("content"), f"{name}.{place}.content"))
    return urls


def _check_common(fields: JsonObject) -> None:
    _check_stream(fields)
    _check_counts(fields, "max_tokens", "max_completion_tokens", "n")
    _check_tier(fields, SERVICE_TIERS)
    bounds.check_bounds(fields)


def _check_stream(fields: JsonObject) -> None:
    stream = fields.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequestError("stream must be true or false", param="stream")
    options = fields.get("stream_options")
    if options is not None and (not isinstance(options, dict) or not stream):
        raise BadRequestError(
            "stream_options must be an object, and goes with stream: true", param="stream_options"
        )


def _check_counts(fields: JsonObject, *names: str) -> None:
    for name in names:
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BadRequestError(f"{name} must be a whole number of at least 1", param=name)
        if name == "n" and value > MAX_N:
            raise BadRequestError(f"n must be at most {MAX_N}", param=name)


def _check_tier(fields: JsonObject, tiers: frozenset[str]) -> None:
    tier = fields.get("service_tier")
    if tier is not None and (not isinstance(tier, str) or tier not in tiers):
        known = ", ".join(sorted(tiers))
        raise BadRequestError(f"service_tier must be one of {known}", param="service_tier")


def _check_template_kwargs(fields: JsonObject) -> None:
    """Switches of a model's own template, as `enable_thinking`; no template."""
    kwargs = fields.get("chat_template_kwargs")
    if kwargs is None:
        return
    param = "chat_template_kwargs"
    if not isinstance(kwargs, dict):
        raise BadRequestError(f"{param} must be an object", param=param)
    bounds.check_switches(kwargs, param)
    for name, value in kwargs.items():
        if name in ("chat_template", "tokenize", "messages", "conversation", "tools") or (
            value is not None and not isinstance(value, TEMPLATE_VALUES)
        ):
            name = name[:64]
            raise BadRequestError(f"{param}.{name} may not be set through this endpoint",
                                  param=f"{param}.{name}")  # fmt: skip


def _check_tools_of_response(fields: JsonObject) -> None:
    """Functions run at the tenant's; OpenAI's built-in tools would run here."""
    tools = fields.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise BadRequestError("tools must be a list", param="tools")
    for place, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type") not in ("function", "custom"):
            raise BadRequestError(
                "only tools of type function are supported", param=f"tools.{place}.type"
            )
