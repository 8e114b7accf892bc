"""Bodies: what is let through, and what no engine is woken for."""

import json

import pytest

from models.errors import BadRequestError
from serving.gateway.checks import MAX_N
from serving.gateway.surface import CHAT, COMPLETION


def chat(**fields: object) -> bytes:
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], **fields}
    return json.dumps(body).encode()


def test_call_carries_what_came_and_what_the_gateway_adds() -> None:
    call = CHAT.read(chat(stream=True, temperature=0.5)).call("salt")
    assert (call.model, call.stream, call.include_usage) == ("demo", True, False)
    added = {"stream_options": {"include_usage": True}, "cache_salt": "salt"}
    assert json.loads(call.body) == json.loads(chat(stream=True, temperature=0.5)) | added


def test_server_that_knows_no_salt_gets_none_and_its_own_model_name() -> None:
    assert json.loads(CHAT.read(chat()).call(model="gpt").body) == json.loads(chat()) | {
        "model": "gpt"
    }


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"include_usage": True}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": None, "continuous_usage_stats": True}, {"include_usage": True}),
        (
            {"include_usage": True, "continuous_usage_stats": True},
            {"include_usage": True, "continuous_usage_stats": True},
        ),
    ],
)
def test_usage_is_always_asked_for_and_continuous_usage_only_as_the_tenant_does(
    options: dict[str, object], sent: dict[str, object]
) -> None:
    call = CHAT.read(chat(stream=True, stream_options=options)).call()
    assert json.loads(call.body)["stream_options"] == sent
    assert call.include_usage is (options["include_usage"] is True)


def test_whole_answer_needs_no_stream_options() -> None:
    assert "stream_options" not in json.loads(CHAT.read(chat()).call().body)


def test_duplicate_keys_do_not_reach_the_engine() -> None:
    body = (
        b'{"model": "a", "cache\\u005fsalt": null, "cache_salt": null, "model": "demo",'
        b'"messages": [{"role": "user", "content": "hi"}]}'
    )
    call = CHAT.read(body).call("ours")
    assert call.body.count(b'"model"') == 1
    assert call.body.count(b'"cache_salt"') == 1
    assert json.loads(call.body)["cache_salt"] == "ours"


def test_service_tier_is_for_the_queue_and_not_for_the_engine() -> None:
    call = CHAT.read(chat(service_tier="flex")).call()
    assert call.service_tier == "flex"
    assert "service_tier" not in json.loads(call.body)


def test_call_says_what_limits_and_queue_want_to_know() -> None:
    fields = {"max_completion_tokens": 7, "max_tokens": 9, "n": 2, "user": "u", "tools": None}
    call = CHAT.read(chat(**fields)).call()
    assert (call.max_tokens, call.n, call.session) == (7, 2, "u")
    assert CHAT.read(chat(prompt_cache_key="k", user="u")).call().session == "k"
    assert call.prompt_bytes == len("userhi")
    assert CHAT.read(chat()).call().max_tokens is None


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("hi", 1), (["hi", "there"], 2), ([1, 2, 3], 1), ([[1], [2]], 2), ("", 1)],
)
def test_completion_takes_every_kind_of_prompt(prompt: object, prompts: int) -> None:
    body = json.dumps({"model": "demo", "prompt": prompt, "n": 3}).encode()
    assert COMPLETION.read(body).call().n == 3 * prompts


@pytest.mark.parametrize(
    "fields",
    [{"stream": None}, {"max_tokens": 1}, {"n": MAX_N}, {"max_completion_tokens": None},
     {"priority": None}, {"chat_template_kwargs": {"enable_thinking": False}}],
)  # fmt: skip
def test_chat_lets_ordinary_fields_pass(fields: dict[str, object]) -> None:
    assert CHAT.read(chat(**fields))


def test_assistants_tool_calls_stand_for_content() -> None:
    parts = [{"type": "text", "text": "hi"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": []}]
    assert CHAT.read(chat(messages=messages))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b'{"model": "demo",}', b'{"model": "\xff"}',
     b'{"model": "\\ud800"}', b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000,
     b'{"model": NaN}'],
)  # fmt: skip
def test_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        CHAT.read(body)


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
        ({"service_tier": "gold"}, "service_tier"),
        ({"service_tier": 1}, "service_tier"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": 1}, "stream_options"),
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
        CHAT.read(chat(**fields))
    assert caught.value.param == param


@pytest.mark.parametrize("prompt", [None, [], 7, {"text": "hi"}])
def test_completion_without_a_prompt_is_refused(prompt: object) -> None:
    with pytest.raises(BadRequestError) as caught:
        COMPLETION.read(json.dumps({"model": "demo", "prompt": prompt}).encode())
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("depth", [255, 800])
def test_body_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    deep: object = 1
    for _ in range(depth):
        deep = [deep]
    with pytest.raises(BadRequestError):
        CHAT.read(chat(metadata={"a": deep})).call()
