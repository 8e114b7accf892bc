"""What of a conversation's messages is checked before any engine is woken for it."""

from models.errors import BadRequestError
from serving.gateway import bounds
from serving.gateway.fields import JsonObject
from serving.gateway.media import check_parts

ROLES = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
"""OpenAI's. vLLM hands any word to the chat template, most of which then render nonsense."""

MAY_SAY_NOTHING = frozenset({"assistant", "function"})
"""Roles whose messages may have no content: an assistant's tool calls stand for themselves."""

MESSAGE_FIELDS = frozenset({
    "role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "function_call",
    "reasoning", "reasoning_content",
})  # fmt: skip


def check_messages(fields: JsonObject, roles: frozenset[str] = ROLES) -> list[str]:
    """Checks `messages`; gives the media URLs that they name.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("messages must be a list of at least one message", param="messages")
    bounds.check_messages(fields, "messages")
    urls: list[str] = []
    for place, message in enumerate(messages):
        param = f"messages.{place}"
        _check_message(message, roles, param)
        content = message.get("content")
        if not isinstance(content, str):
            urls.extend(check_parts(content, f"{param}.content"))
    return urls


def _check_message(message: object, roles: frozenset[str], param: str) -> None:
    if not isinstance(message, dict):
        raise BadRequestError("each message must be an object", param=param)
    role = message.get("role")
    if not isinstance(role, str) or role not in roles:
        known = ", ".join(sorted(roles))
        raise BadRequestError(f"a message's role must be one of {known}", param=f"{param}.role")
    if not message.keys() <= MESSAGE_FIELDS:
        name = next(name for name in message if name not in MESSAGE_FIELDS)[:64]
        if message[name] is not None:
            raise BadRequestError(f"a message has no field {name}", param=f"{param}.{name}")
    content = message.get("content")
    if not isinstance(content, str | list) and role not in MAY_SAY_NOTHING:
        raise BadRequestError(
            f"a message of role {role} needs content: a string or a list of parts",
            param=f"{param}.content",
        )
