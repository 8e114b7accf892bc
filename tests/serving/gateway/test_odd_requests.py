"""Odd names, paths, headers and JSON: they are refused, and are never an error of ours."""

import pytest

from tests.serving.gateway.by_hand import BODY, head, status_of
from tests.serving.gateway.conftest import Gateway, chat
from tests.serving.gateway.fake_controller import TENANT_KEY, FakeController
from tests.serving.gateway.fake_engine import FakeEngine


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..%2f..%2fetc", "%2e%2e%2f", "demo/../asleep", "demo%00", "\u0000demo",
     "demo\u202e", "x" * 100_000, "DEMO", " demo", "demo?x=1", "http://169.254.169.254/"],
)  # fmt: skip
async def test_odd_model_name_is_an_unknown_model(
    gateway: Gateway, engine: FakeEngine, name: str
) -> None:
    answer = await gateway.http.post("/v1/chat/completions", json=chat(model=name))
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert not engine.seen


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1%2fmodels", 200),  # decoded once, as nginx does before it looks for the location
        ("/v1/models%2Fdemo", 200),
        ("/%76%31/models", 200),
        ("/v1%252fmodels", 404),
        ("/v1/models/%2564emo", 404),
        ("/v1%5cmodels", 404),
        ("/v1/models/demo%2f", 404),
        ("//v1/models", 404),
        ("/v1/models/", 404),
        ("/v1/./models", 404),
    ],
)
async def test_encoded_path_is_decoded_once(gateway: Gateway, path: str, status: int) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TENANT_KEY}\r\n"
    answer = await gateway.raw(request.encode() + b"Connection: close\r\n\r\n")
    assert status_of(answer) == status
    assert b"x-request-id" in answer


async def test_encoded_slash_opens_nothing_that_is_closed(
    gateway: Gateway, controller: FakeController
) -> None:
    for path in ("/internal%2fv1%2froutes", "/admin%2fv1/..%2f..%2finternal/v1/routes",
                 "/admin/v1/%2e%2e/%2e%2e/internal/v1/routes"):  # fmt: skip
        answer = await gateway.raw(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )
        assert status_of(answer) == 404
    assert not controller.admin_requests


@pytest.mark.parametrize(
    "path",
    ["/v1/models/..%2f..%2fmetrics", "/v1/models/%252e%252e", "/v1/models/a%00b",
     "/v1/../internal/v1/routes", "/v1/chat/../../metrics", "/%76%31/models%3f"],
)  # fmt: skip
async def test_odd_path_leads_nowhere(gateway: Gateway, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TENANT_KEY}\r\n"
    answer = await gateway.raw(request.encode() + b"Connection: close\r\n\r\n")
    assert status_of(answer) == 404


@pytest.mark.parametrize(
    "content",
    [
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"model": "demo", "messages": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"model": "demo", "seed": 1' + b"0" * 5_000 + b"}",
        b'{"model": "demo", "max_tokens": 99999999999999999999999999, "messages": []}',
        b'{"model": "demo", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "demo\\u0000", "messages": []}',
        b'{"model": "demo", "temperature": 1e999, "messages": []}',
        b'{"model": "demo", "temperature": NaN, "messages": []}',
    ],
)
async def test_odd_json_is_a_4xx(gateway: Gateway, engine: FakeEngine, content: bytes) -> None:
    answer = await gateway.http.post("/v1/chat/completions", content=content)
    assert 400 <= answer.status_code < 500
    assert not engine.seen


ODD_HEADERS = (
    b"Authorization: Bearer \xff\xfe", b"Authorization: Bearer", b"Authorization: ",
    b"X-Api-Key: \xff", b"X-Api-Key: " + b"k" * 20_000, b"X-Request-Id: \xc3\x28",
    b"Traceparent: 00-\xff-1-01",
    b"Traceparent: 00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-zz", b"X-Penstock-Keep-Alive-S: nan",
    b"X-Penstock-Keep-Alive-S: inf", b"X-Penstock-Keep-Alive-S: -1",
    b"X-Penstock-Keep-Alive-S: 1e400", b"Content-Type: \xff", b"Content-Encoding: gzip",
    b"Content-Type: multipart/form-data; boundary=\xff", b"Expect: the impossible",
)  # fmt: skip


async def test_odd_header_is_never_an_error_of_ours(gateway: Gateway) -> None:
    for line in ODD_HEADERS:
        given = head(f"Content-Length: {len(BODY)}", "Connection: close")
        if line.startswith((b"Auth", b"X-Api")):
            given = given.replace(f"Authorization: Bearer {TENANT_KEY}\r\n".encode(), b"")
        answer = await gateway.raw(given[:-2] + line + b"\r\n\r\n" + BODY)
        assert status_of(answer) < 500, line
