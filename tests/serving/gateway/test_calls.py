"""Bodies: what is let through, and what no engine is woken for."""

import json

import pytest

from models.errors import BadRequestError
from serving.gateway.calls import MAX_N, Operation, check_chat, check_completion

CHAT = Operation("/v1/chat/completions", check_chat)
COMPLETION = Operation("/v1/completions", check_completion)


def chat(**fields: object) -> bytes:
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], **fields}
    return json.dumps(body).encode()


def test_call_carries_the_body_as_it_came() -> None:
    body = chat(stream=True, temperature=0.5)
    call = CHAT.parse(body)
    assert (call.model, call.stream, call.body) == ("demo", True, body)


@pytest.mark.parametrize("prompt", ["hi", ["hi", "there"], [1, 2, 3], [[1], [2]], ""])
def test_completion_takes_every_kind_of_prompt(prompt: object) -> None:
    assert COMPLETION.parse(json.dumps({"model": "demo", "prompt": prompt}).encode())


@pytest.mark.parametrize(
    "fields",
    [{"stream": None}, {"max_tokens": 1}, {"n": MAX_N}, {"max_completion_tokens": None},
     {"priority": None}, {"chat_template_kwargs": {"enable_thinking": False}}],
)  # fmt: skip
def test_chat_lets_ordinary_fields_pass(fields: dict[str, object]) -> None:
    assert CHAT.parse(chat(**fields))


def test_assistants_tool_calls_stand_for_content() -> None:
    parts = [{"type": "text", "text": "hi"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": []}]
    assert CHAT.parse(chat(messages=messages))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b'{"model": "demo",}', b'{"model": "\xff"}',
     b'{"model": "\\ud800"}', b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000,
     b'{"model": NaN}'],
)  # fmt: skip
def test_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        CHAT.parse(body)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"model": ["demo"]}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}, "messages.1.role"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": None}]}, "messages.0.content"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": MAX_N + 1}, "n"),
        ({"priority": -5}, "priority"),
        ({"cache_salt": "mine"}, "cache_salt"),
        ({"kv_transfer_params": {}}, "kv_transfer_params"),
        ({"request_id": "x"}, "request_id"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
    ],
)
def test_field_at_fault_is_named(fields: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        CHAT.parse(chat(**fields))
    assert caught.value.param == param


@pytest.mark.parametrize("prompt", [None, [], 7, {"text": "hi"}])
def test_completion_without_a_prompt_is_refused(prompt: object) -> None:
    with pytest.raises(BadRequestError) as caught:
        COMPLETION.parse(json.dumps({"model": "demo", "prompt": prompt}).encode())
    assert caught.value.param == "prompt"
