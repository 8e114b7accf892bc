"""Errors on the wire: ours, the router's and an engine's, all in OpenAI's shape."""

import json

import pytest

from models.errors import DeadlineError, QueueFullError, UnauthenticatedError, UpstreamError
from serving.engine import grammar_budget
from serving.gateway.errors import (
    MAX_MESSAGE_CHARS,
    answer_of,
    answer_of_engine,
    answer_of_http,
    sse_event,
)


def engine_error(message: str, code: int = 400, param: str | None = None) -> bytes:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": code}
    return json.dumps({"error": error}).encode()


def test_own_error_keeps_its_status_and_code() -> None:
    answer = answer_of(DeadlineError("too late", retry_after_s=4.2))
    assert answer.status == 503
    assert dict(answer.headers)[b"retry-after"] == b"5"
    assert json.loads(answer.body)["error"] == {
        "message": "too late", "type": "server_error", "param": None, "code": "deadline_exceeded",
    }  # fmt: skip


def test_retry_after_is_never_zero() -> None:
    answer = answer_of(QueueFullError("full", retry_after_s=0.01))
    assert dict(answer.headers)[b"retry-after"] == b"1"


def test_missing_key_names_the_scheme() -> None:
    headers = dict(answer_of(UnauthenticatedError("no key")).headers)
    assert headers[b"www-authenticate"].startswith(b"Bearer")


def test_wrong_method_says_which_are_allowed() -> None:
    answer = answer_of_http(405, "DELETE", "/v1/models", "GET")
    assert dict(answer.headers) == {b"allow": b"GET"}
    assert json.loads(answer.body)["error"]["code"] == "method_not_allowed"


def test_engines_refusal_keeps_message_and_param_and_loses_its_numeric_code() -> None:
    answer = answer_of_engine(400, engine_error("top_p must be in (0, 1]", param="top_p"))
    assert answer.status == 400
    assert json.loads(answer.body)["error"] == {
        "message": "top_p must be in (0, 1]", "type": "invalid_request_error", "param": "top_p",
        "code": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 512 tokens. However, your prompt contains 600 "
        "input tokens",
        "The decoder prompt (length 600) is longer than the maximum model length of 512.",
        "Input length (600) exceeds model's maximum context length (512).",
    ],
)
def test_context_overflow_has_openais_code(message: str) -> None:
    answer = answer_of_engine(400, engine_error(message))
    assert json.loads(answer.body)["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("kind", "param"), [("json", "response_format"), ("regex", "structured_outputs")]
)
def test_grammar_that_is_too_slow_has_a_code_and_its_field(kind: str, param: str) -> None:
    _, message = grammar_budget.refusal(kind)
    error = json.loads(answer_of_engine(400, engine_error(message)).body)["error"]
    assert (error["code"], error["param"]) == ("grammar_too_complex", param)
    assert error["type"] == "invalid_request_error"


def test_field_of_the_body_is_named_as_the_tenant_knows_it() -> None:
    answer = answer_of_engine(400, engine_error("not a number", param="body.top_p"))
    assert json.loads(answer.body)["error"]["param"] == "top_p"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("min_p must be in [0, 1], got nan.", "min_p"),
        ("min_tokens must be less than or equal to max_tokens=5, got 100.", "min_tokens"),
        ("thinking_token_budget is set but reasoning_config is not", "thinking_token_budget"),
        ("bad_words cannot contain an empty string.", "bad_words"),
        ("nothing must be known", None),
        ("the stop must be", None),
    ],
)
def test_field_that_an_engine_names_in_words_alone_is_named(
    message: str, param: str | None
) -> None:
    answer = answer_of_engine(400, engine_error(message))
    assert json.loads(answer.body)["error"]["param"] == param


@pytest.mark.parametrize("status", [307, 401, 403, 404, 405])
def test_refusal_that_only_the_platform_can_cause_is_a_bad_gateway(status: int) -> None:
    answer = answer_of_engine(status, engine_error("Unauthorized", status))
    assert answer.status == 502
    assert b"Unauthorized" not in answer.body


def test_what_the_model_cannot_do_is_the_requests_fault() -> None:
    assert answer_of_engine(501, engine_error("no beam search", 501)).status == 400


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"error": {"message": 5, "param": {}}}']
)
def test_engine_error_of_any_shape_becomes_openais(body: bytes) -> None:
    error = json.loads(answer_of_engine(422, body).body)["error"]
    assert error["type"] == "invalid_request_error"
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["param"] is None


def test_endless_message_of_an_engine_is_cut() -> None:
    answer = answer_of_engine(400, engine_error("x" * 100_000))
    assert len(json.loads(answer.body)["error"]["message"]) == MAX_MESSAGE_CHARS


def test_error_event_stands_apart_from_the_event_before_it() -> None:
    event = sse_event(answer_of(UpstreamError("broke")))
    assert event.startswith(b'\ndata: {"error"')
    assert event.endswith(b"\n\n")
