"""Bad input through the whole platform: OpenAI's statuses and shape, and the engine unharmed."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.platform.conftest import API_KEY
from tests.platform.platform import Platform

pytestmark = pytest.mark.engine

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
def engine_is_unharmed(platform: Platform, client: OpenAI) -> Iterator[None]:
    """The same engine process answers before and after."""

    def pids() -> list[int]:
        return [e["pid"] for e in platform.items("engines") if e["model"] == "guide"]

    client.chat.completions.create(model="guide", messages=HELLO, max_tokens=1)
    before = pids()
    yield
    client.chat.completions.create(model="guide", messages=HELLO, max_tokens=1)
    assert pids() == before


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 0},
        {"max_tokens": -5},
        {"max_completion_tokens": 0},
        {"n": 0},
        {"messages": []},
        {"messages": "hello"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"temperature": "hot"},
        {"temperature": -1},
        {"stream": "yes"},
        {"messages": [{"role": "user", "content": "long " * 20_000}]},
        {"max_tokens": 1_000_000},
        {"stop": 7},
        {"logprobs": True, "top_logprobs": 100_000},
        {"response_format": {"type": "json_schema"}},
    ],
)
def test_bad_field_is_a_bad_request(client: OpenAI, change: dict[str, Any]) -> None:
    body = {"model": "guide", "messages": HELLO, **change}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=httpx.Response)
    assert_openai_shape(caught.value)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"logit_bias": {"9999999": 1}}, "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(2000)}}, "logit_bias"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop_token_ids": [-1], "min_tokens": 2}, "stop_token_ids"),
        ({"min_tokens": 9, "max_tokens": 5}, "min_tokens"),
        ({"min_p": "nan"}, "min_p"),
        ({"seed": 2**63}, "seed"),
        ({"n": 10**9}, "n"),
        ({"bad_words": ["x" * 1000]}, "bad_words"),
        ({"prompt_logprobs": 10**9}, "prompt_logprobs"),
        ({"structured_outputs": {"regex": "a" * 20_000}}, "structured_outputs.regex"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 1001}, "tools"),
    ],
)
def test_value_past_its_bounds_is_refused_by_name(
    client: OpenAI, change: dict[str, Any], param: str
) -> None:
    body = {"model": "guide", "messages": HELLO, **change}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=httpx.Response)
    assert_openai_shape(caught.value)
    assert caught.value.param == param


def test_grammar_that_holds_up_an_engine_ends_alone(platform: Platform, client: OpenAI) -> None:
    letter = httpx.post(
        f"{platform.url}/tokenize",
        json={"model": "guide", "prompt": "a", "add_special_tokens": False},
        headers={"Authorization": f"Bearer {API_KEY}"},
        timeout=30,
    ).json()["tokens"]
    with client.chat.completions.create(
        model="guide", messages=HELLO, max_tokens=300, stream=True, extra_body={"ignore_eos": True}
    ) as neighbour:
        next(neighbour)
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model="guide",
                messages=HELLO,
                max_tokens=1000,
                extra_body={
                    "structured_outputs": {"regex": "(((a?){1,100}){1,100}){1,100}"},
                    "allowed_token_ids": letter,
                },
            )
        assert_openai_shape(caught.value)
        assert (caught.value.code, caught.value.param) == (
            "grammar_too_complex", "structured_outputs"
        )  # fmt: skip
        assert [chunk.choices[0].finish_reason for chunk in neighbour][-1] == "length"


def test_prompt_past_the_context_names_the_reason(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="guide", prompt="long " * 20_000)
    assert caught.value.code == "context_length_exceeded"


def test_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-17", messages=HELLO)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-17")


@pytest.mark.parametrize("key", ["wrong", "pk-" + "x" * 40, API_KEY + "x", API_KEY[:-1]])
def test_wrong_key_is_refused(client: OpenAI, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client.with_options(api_key=key).models.list()
    assert caught.value.code == "invalid_api_key"


def test_missing_key_is_refused(platform: Platform) -> None:
    answer = httpx.get(f"{platform.url}/v1/models", timeout=30)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_body_of_20_mb_is_too_large(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(model="guide", prompt="x" * 20_000_000)
    assert caught.value.status_code == 413
    assert_openai_shape(caught.value)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/metrics/x", 404),
        ("POST", "/internal/v1/demand", 404),
        ("GET", "/penstock/in_flight", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405),
    ],
)
def test_wrong_path_or_method(platform: Platform, method: str, path: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    answer = httpx.request(method, platform.url + path, headers=headers, timeout=30)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"guide"',
        b'{"model": 7, "messages": []}',
        b'{"messages": []}',
        b'{"model": "guide"}',
        b'{"model": "guide", "messages": [{"role": "user", "content": "\xff"}]}',
        b"[" * 100_000,
    ],
)
def test_malformed_body_is_a_bad_request(platform: Platform, content: bytes) -> None:
    answer = httpx.post(
        f"{platform.url}/v1/chat/completions",
        content=content,
        headers={"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"},
        timeout=30,
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_admin_api_is_closed_to_tenants(platform: Platform) -> None:
    answer = httpx.get(
        f"{platform.url}/admin/v1/models", headers={"Authorization": f"Bearer {API_KEY}"}
    )
    assert answer.status_code == 403
    assert httpx.get(f"{platform.url}/admin/v1/models").status_code == 401


def assert_openai_shape(error: openai.APIStatusError) -> None:
    body = error.response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)
    assert body["error"]["code"] is None or isinstance(body["error"]["code"], str)
    assert "Traceback" not in body["error"]["message"]
