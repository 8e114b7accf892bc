"""Bad input at the door, as the official client and plain HTTP see it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import httpx
import openai
import pytest

from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat
from tests.serving.gateway.fake_controller import KEYS, TENANT_KEY, FakeController
from tests.serving.gateway.fake_engine import FakeEngine

MESSAGES = [{"role": "user", "content": "hi"}]
PATH = "/v1/chat/completions"


def assert_openai_shape(answer: httpx.Response, status: int, code: str | None) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'{"model": "\xff\xfe"}', b"[" * 100_000, b'{"model": 5}',
     json.dumps(chat(stream="yes")).encode(), json.dumps(chat(max_tokens=0)).encode()],
)  # fmt: skip
async def test_bad_body_is_a_400_and_wakes_no_engine(
    gateway: Gateway, engine: FakeEngine, body: bytes
) -> None:
    assert_openai_shape(await gateway.http.post(PATH, content=body), 400, None)
    assert not engine.seen


@pytest.mark.parametrize("fields", [{"max_tokens": 0}, {"max_tokens": -3}, {"n": 0}])
async def test_openai_client_raises_bad_request(gateway: Gateway, fields: dict[str, int]) -> None:
    async with gateway.openai() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="demo", messages=MESSAGES, extra_body=fields)
    assert caught.value.param == next(iter(fields))


async def test_openai_client_raises_bad_request_past_the_context(
    gateway: Gateway, engine: FakeEngine
) -> None:
    message = "This model's maximum context length is 512 tokens. However, ..."
    engine.default = fake_engine.refuses(400, message, "input_tokens")
    async with gateway.openai() as client:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.chat.completions.create(model="demo", messages=MESSAGES, stream=stream)
            assert caught.value.code == "context_length_exceeded"
            assert caught.value.param == "input_tokens"


async def test_openai_client_raises_not_found_for_an_unknown_model(gateway: Gateway) -> None:
    async with gateway.openai() as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="nope", messages=MESSAGES)
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("org/nope")


async def test_openai_client_lists_models_the_sleeping_ones_too(gateway: Gateway) -> None:
    async with gateway.openai() as client:
        assert [one.id async for one in client.models.list()] == ["asleep", "demo"]
        retrieved = await client.models.retrieve("asleep")
        assert (retrieved.object, retrieved.owned_by) == ("model", "penstock")


async def test_openai_client_raises_authentication_error_for_a_wrong_key(
    gateway: Gateway,
) -> None:
    async with gateway.openai("sk-tenant-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="demo", messages=MESSAGES)
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


@pytest.mark.parametrize(("method", "path"), [("POST", PATH), ("GET", "/v1/models")])
async def test_missing_key_is_a_401_that_names_the_scheme(
    gateway: Gateway, method: str, path: str
) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as stranger:
        answer = await stranger.request(method, path)
    assert_openai_shape(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_revoked_key_is_refused_as_soon_as_the_gateway_knows(
    gateway: Gateway, controller: FakeController
) -> None:
    controller.set_keys(*KEYS[1:])
    await gateway.answers("/v1/models", 401)


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/models/", "/v1/embedding", "/docs", "/openapi.json", "/internal/v1/routes",
     "/v1/chat/completions/", "/tokenizer_info", "/%2e%2e/metrics", "//metrics", "/metrics/"],
)  # fmt: skip
async def test_unknown_path_is_a_404(gateway: Gateway, path: str) -> None:
    answer = await gateway.http.get(path)
    code = "model_not_found" if path == "/v1/models/" else "not_found"
    assert_openai_shape(answer, 404, code)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", PATH, "POST"), ("DELETE", "/v1/models", "GET"), ("PUT", "/v1/completions", "POST"),
     ("POST", "/health", "GET"), ("POST", "/v1/models/demo", "GET")],
)  # fmt: skip
async def test_wrong_method_is_a_405_that_says_which_are_allowed(
    gateway: Gateway, method: str, path: str, allowed: str
) -> None:
    answer = await gateway.http.request(method, path)
    assert_openai_shape(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


async def test_openai_client_sees_the_405_as_a_status_error(gateway: Gateway) -> None:
    async with gateway.openai() as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.delete("/models", cast_to=object)
    assert caught.value.status_code == 405


async def test_openai_client_sees_the_413_of_a_body_of_20_mb(gateway: Gateway) -> None:
    messages = [{"role": "user", "content": "x" * 20_000_000}]
    async with gateway.openai() as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="demo", messages=messages)
    assert caught.value.status_code == 413
    assert caught.value.code == "body_too_large"


@pytest.mark.parametrize(
    ("path", "connection"),
    [(PATH, None), ("/v1/completions", "close")],  # a chat may have media: it is read whole
)
async def test_chunked_body_of_20_mb_is_a_413_too(
    gateway: Gateway, engine: FakeEngine, path: str, connection: str | None
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 1_000_000

    answer = await gateway.http.post(path, content=parts())
    assert_openai_shape(answer, 413, "body_too_large")
    assert answer.headers.get("connection") == connection
    assert not engine.seen


async def test_gateway_serves_on_after_all_of_it(gateway: Gateway) -> None:
    bad = [b"[" * 100_000, b'{"model": "\xff"}', b"x" * 2_000_000]
    await asyncio.gather(*(gateway.http.post(PATH, content=body) for body in bad * 5))
    assert (await gateway.http.post(PATH, json=chat())).status_code == 200


async def test_health_and_metrics_need_no_key(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as stranger:
        for path in ("/health", "/ready", "/metrics"):
            assert (await stranger.get(path)).status_code == 200


async def test_gateway_is_healthy_but_not_ready_before_it_knows_models_and_keys(
    make_gateway: Callable[..., Gateway], settings: object, controller: FakeController
) -> None:
    await controller.stop()
    gateway = make_gateway(settings)
    await gateway.start(ready=False)
    assert (await gateway.http.get("/health")).status_code == 200
    assert_openai_shape(await gateway.http.get("/ready"), 503, "unavailable")
    assert_openai_shape(await gateway.http.post(PATH, json=chat()), 503, "unavailable")


async def test_keys_are_never_logged(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    await gateway.http.post(PATH, json=chat(messages=[{"role": "user", "content": "secret"}]))
    assert TENANT_KEY not in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("method", "path"),
    [("OPTIONS", PATH), ("OPTIONS", "/v1/models"), ("GET", "/v1/models"), ("POST", PATH)],
)
async def test_pages_of_other_sites_are_told_nothing(
    gateway: Gateway, method: str, path: str
) -> None:
    headers = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    body = chat() if method == "POST" else None
    answer = await gateway.http.request(method, path, headers=headers, json=body)
    assert answer.status_code == (405 if method == "OPTIONS" else 200)
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/responses/resp_1"), ("DELETE", "/v1/responses/resp_1"),
     ("GET", "/v1/responses/resp_1/input_items"), ("POST", "/v1/responses/resp_1/cancel")],
)  # fmt: skip
async def test_stored_responses_are_refused_clearly(
    gateway: Gateway, engine: FakeEngine, method: str, path: str
) -> None:
    answer = await gateway.http.request(method, path)
    assert_openai_shape(answer, 404, "not_found")
    assert "not stored" in answer.json()["error"]["message"]
    nobody = await gateway.http.request(method, path, headers={"Authorization": "Bearer x"})
    assert nobody.status_code == 401
    assert not engine.seen
