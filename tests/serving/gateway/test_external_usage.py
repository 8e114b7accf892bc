"""What a server that others run is charged for: what it tells, else what went out."""

import asyncio
import json
from dataclasses import replace

import pytest

from serving.gateway.calls import Call
from serving.gateway.elsewhere import (
    tokens_guessed,
)
from serving.gateway.estimates import Estimates
from serving.gateway.tokens import Tokens
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat, until
from tests.serving.gateway.fake_controller import FakeController
from tests.serving.gateway.fake_engine import Behaviour, FakeEngine, Seen
from tests.serving.gateway.test_metering import only_row

PATH = "/v1/chat/completions"


async def test_stream_that_breaks_ends_in_an_error_event_and_is_billed_by_what_was_delivered(
    outside: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.script.append(fake_engine.dies_mid_event)
    answer = await outside.http.post(PATH, json=chat(stream=True))
    assert b'data: {"error":' in answer.content
    row = await only_row(controller)
    assert (row.status, row.delivered, row.completion) == ("cut", 2, 2)
    assert row.known  # no recorder will ever tell more
    assert row.prompt > 0


async def says_no_usage(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Streams and does not know `include_usage`, with the line ends of other frameworks."""
    writer.write(fake_engine.SSE_HEAD)
    for part in fake_engine.STREAM:
        writer.write(fake_engine.chunked(part.replace(b"\n", b"\r\n")))
    writer.write(b"0\r\n\r\n")


async def test_usage_that_a_server_does_not_tell_is_guessed_from_what_went_out(
    outside: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.default = says_no_usage
    asked = chat(stream=True, stream_options={"include_usage": True})
    answer = await outside.http.post(PATH, json=asked)
    assert answer.content.replace(b"\r\n", b"\n") == b"".join(fake_engine.STREAM)
    row = await only_row(controller)
    assert (row.status, row.known) == ("complete", True)
    assert row.completion == row.delivered == len(fake_engine.TOKENS)
    assert row.prompt > 0
    assert row.estimated


TEXT = "Wasser fällt durch das Druckrohr auf die Turbine. " * 8


def says_whole(answer: dict[str, object]) -> Behaviour:
    """Answers at once, and tells no usage."""

    async def behaviour(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(fake_engine.whole(200, answer))

    return behaviour


async def test_whole_answer_that_tells_no_usage_is_guessed_from_its_text(
    outside: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    message = {"role": "assistant", "content": TEXT}
    engine.default = says_whole({"id": "x", "choices": [{"index": 0, "message": message}]})
    assert (await outside.http.post(PATH, json=chat())).status_code == 200
    row = await only_row(controller)
    assert (row.status, row.known, row.estimated) == ("complete", True, True)
    assert row.completion == len(TEXT.encode()) / 4  # nobody has told of a text yet
    assert row.prompt > 0


async def test_answer_that_tells_its_usage_is_no_estimate(
    outside: Gateway, controller: FakeController
) -> None:
    await outside.http.post(PATH, json=chat())
    row = await only_row(controller)
    assert (row.prompt, row.completion, row.estimated) == (3, 6, False)


async def test_embedding_that_tells_no_usage_has_no_completion(
    outside: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.default = says_whole({"data": [{"embedding": [0.1, 0.2], "content": TEXT}]})
    await outside.http.post("/v1/embeddings", json={"model": "demo", "input": TEXT})
    row = await only_row(controller)
    assert (row.status, row.completion, row.estimated) == ("complete", 0, True)
    assert row.prompt == len(TEXT.encode()) / 4


CALL = Call("demo", stream=False, body=b"{}")
TOOL = {"name": "turn", "description": TEXT, "parameters": {"text": TEXT}}


@pytest.mark.parametrize(
    ("answer", "made"),
    [
        ({"choices": [{"text": TEXT}, {"text": TEXT}]}, 2 * len(TEXT.encode())),
        ({"choices": [{"message": {"reasoning_content": "ab", "content": "abcdef"}}]}, 8),
        ({"choices": [{"message": {"content": None, "tool_calls": [
            {"id": "call-1", "function": {"name": "turn", "arguments": '{"a": 1}'}}]}}]}, 12),
        ({"content": [{"type": "thinking", "thinking": "abcd"},
                      {"type": "tool_use", "name": "turn", "input": {"by": 12}}]}, 17),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "abcd"}]},
                     {"type": "function_call", "name": "turn", "arguments": "{}"}],
          "instructions": TEXT, "tools": [TOOL], "text": {"format": TOOL}}, 10),
        ({"text": TEXT, "segments": [{"text": TEXT}]}, len(TEXT.encode())),
        ({"choices": [{"message": {"content": "abcd"}, "logprobs": {"content": [
            {"token": "ab", "top_logprobs": [{"token": "ab"}]}]}}]}, 4),
        ({"choices": 7}, 0),
        ([], 0),
    ],
)  # fmt: skip
def test_what_an_answer_took_is_guessed_from_what_was_made_for_it(
    answer: object, made: int
) -> None:
    body = json.dumps(answer).encode()
    seen = tokens_guessed(body, "application/json", CALL, 9, Estimates())
    assert seen == Tokens(9, max(1, round(made / 4)))


def test_guess_follows_the_bytes_a_token_that_were_learned_and_what_was_asked_for() -> None:
    body = json.dumps({"choices": [{"text": "a" * 600}] * 2}).encode()
    estimates = Estimates()
    for _ in range(400):
        estimates.learn(prompt_bytes=3000, answers=1, tokens=Tokens(1000, 20))
    guessed = tokens_guessed(body, "application/json", CALL, 9, estimates)
    assert guessed.completion == pytest.approx(400, rel=0.05)
    short = replace(CALL, max_tokens=50)
    assert tokens_guessed(body, "application/json", short, 9, estimates) == Tokens(9, 100)


def test_text_that_is_no_json_is_taken_as_it_stands() -> None:
    said = ("text/plain; charset=utf-8", "text/html")
    guesses = [tokens_guessed(b"a" * 40, kind, CALL, 9, Estimates()) for kind in said]
    assert guesses == [Tokens(9, 10), Tokens(9, 1)]


async def test_tenant_who_leaves_pays_for_what_was_delivered_and_frees_the_slot(
    outside: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.script.append(fake_engine.stalls_mid_stream)
    async with outside.http.stream("POST", PATH, json=chat(stream=True)) as answer:
        await anext(answer.aiter_lines())
        await until(lambda: engine.running == 1)
    row = await only_row(controller)
    assert (row.status, row.known) == ("cancelled", True)
    await until(lambda: engine.aborted == 1)
    await outside.shows(0, "penstock_requests_in_flight")
