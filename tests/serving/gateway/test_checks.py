"""Each route's own fields: what is let through, what is refused, and how it is named."""

import json

import pytest

from models.errors import BadRequestError
from serving.gateway.surface import OPERATIONS

BY_PATH = {operation.path: operation for operation in OPERATIONS}
USER = [{"role": "user", "content": "hi"}]
GOOD: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": USER, "tools": [], "tool_choice": "auto"},
    "/v1/completions": {"prompt": "hi", "echo": True},
    "/v1/responses": {"input": "hi", "max_output_tokens": 5, "store": False},
    "/v1/messages": {"messages": USER, "max_tokens": 5, "system": [{"type": "text", "text": "x"}]},
    "/v1/messages/count_tokens": {"messages": USER},
    "/v1/embeddings": {"input": ["a", "b"], "encoding_format": "base64"},
    "/rerank": {"query": "q", "documents": ["a", "b"], "top_n": 1},
    "/v1/rerank": {"query": "q", "documents": [{"content": [{"type": "text", "text": "a"}]}]},
    "/v2/rerank": {"query": "q", "documents": ["a"]},
    "/score": {"text_1": "a", "text_2": ["b"]},
    "/v1/score": {"queries": "a", "documents": ["b"]},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [1, 2]},
}


def read(path: str, **fields: object) -> dict[str, object]:
    body = {"model": "demo", **GOOD[path], **fields}
    return json.loads(BY_PATH[path].read(json.dumps(body).encode()).call("salt").body)


def test_every_route_with_a_json_body_is_tried_here() -> None:
    assert set(GOOD) == {path for path in BY_PATH if "audio" not in path}


@pytest.mark.parametrize("path", GOOD)
def test_good_body_passes(path: str) -> None:
    sent = read(path)
    assert sent.items() >= GOOD[path].items()
    salted = path not in ("/tokenize", "/detokenize", "/v1/messages/count_tokens")
    assert ("cache_salt" in sent) is salted


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    "name",
    ["priority", "cache_salt", "kv_transfer_params", "ec_transfer_params", "request_id",
     "chat_template", "vllm_xargs", "use_beam_search", "best_of", "prompt_embeds",
     "mm_processor_kwargs", "media_io_kwargs", "stream_interval", "routed_experts_prompt_start",
     "guided_json", "logits_processors", "lora_path", "", "\u0000", "x" * 10_000],
)  # fmt: skip
def test_field_that_is_not_allowed_is_refused_by_name(path: str, name: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(path, **{name: 1})
    assert caught.value.param == name[:64]
    assert read(path, **{name: None}) == read(path)  # null is not set


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/responses", {"previous_response_id": "r"}, "previous_response_id"),
        ("/v1/responses", {"store": True}, "store"),
        ("/v1/responses", {"background": True}, "background"),
        ("/v1/responses", {"conversation": "c"}, "conversation"),
        ("/v1/responses", {"prompt": {"id": "p"}}, "prompt"),
        ("/v1/responses", {"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ("/v1/responses", {"input": []}, "input"),
        ("/v1/responses", {"input": ["x"]}, "input.0"),
        ("/v1/chat/completions", {"store": True}, "store"),
        ("/v1/chat/completions", {"chat_template_kwargs": {"f": {}}}, "chat_template_kwargs.f"),
        ("/v1/chat/completions", {"messages": [USER[0] | {"x": 1}]}, "messages.0.x"),
        ("/v1/messages", {"max_tokens": None}, "max_tokens"),
        ("/v1/messages", {"max_tokens": 0}, "max_tokens"),
        ("/v1/messages", {"service_tier": "flex"}, "service_tier"),
        ("/v1/messages", {"messages": [{"role": "tool", "content": ""}]}, "messages.0.role"),
        ("/v1/messages", {"stream": "yes"}, "stream"),
        ("/v1/embeddings", {"input": None}, "input"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/rerank", {"documents": []}, "documents"),
        ("/rerank", {"query": None}, "query"),
        ("/score", {"text_2": None}, "text_1"),
        ("/tokenize", {"prompt": 7}, "prompt"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
    ],
)
def test_field_at_fault_is_named(path: str, fields: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(path, **fields)
    assert caught.value.param == param


def test_media_url_is_refused_unless_its_domain_is_allowed() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://pics.example.com/a.png"}}
    messages = [{"role": "user", "content": [image]}]
    chat = BY_PATH["/v1/chat/completions"]
    body = json.dumps({"model": "demo", "messages": messages}).encode()
    with pytest.raises(BadRequestError):
        chat.read(body)
    assert chat.read(body, domains=frozenset({"pics.example.com"})).urls == (
        "https://pics.example.com/a.png",
    )


def test_response_is_never_stored_where_the_tenant_says_nothing() -> None:
    body = {"model": "demo", "input": "hi"}
    call = BY_PATH["/v1/responses"].read(json.dumps(body).encode()).call()
    assert json.loads(call.body)["store"] is False


def test_routes_without_an_answer_of_tokens_reserve_none() -> None:
    for path in ("/v1/embeddings", "/score", "/tokenize"):
        body = json.dumps({"model": "demo", **GOOD[path]}).encode()
        assert BY_PATH[path].read(body).call().max_tokens == 0
