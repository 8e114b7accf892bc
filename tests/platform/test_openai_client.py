"""The official openai client against a real engine behind the whole platform."""

import json
import time

import openai
import pytest
from openai import OpenAI

from tests.platform.platform import eventually

pytestmark = pytest.mark.engine

QUESTION = [{"role": "user", "content": "What is Penstock?"}]


def test_chat_answers(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="guide", messages=QUESTION, temperature=0)
    assert "Penstock" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == "guide"


def test_chat_streams_the_same_text(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="guide", messages=QUESTION, temperature=0)
    chunks = list(
        client.chat.completions.create(model="guide", messages=QUESTION, temperature=0, stream=True)
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert all(chunk.usage is None for chunk in chunks), "usage that nobody asked for"


def test_stream_ends_with_usage_where_asked(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="guide", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert chunks[-1].choices == []


def test_completions_answer_and_stream(client: OpenAI) -> None:
    whole = client.completions.create(model="guide", prompt="Penstock is", max_tokens=8)
    assert whole.usage is not None
    assert 0 < whole.usage.completion_tokens <= 8
    stream = client.completions.create(
        model="guide", prompt="Penstock is", max_tokens=8, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream)


def test_models_are_listed(client: OpenAI) -> None:
    assert "guide" in [model.id for model in client.models.list()]
    assert client.models.retrieve("guide").object == "model"


def test_stop_cuts_the_text(client: OpenAI) -> None:
    plain = client.chat.completions.create(model="guide", messages=QUESTION, temperature=0)
    text = plain.choices[0].message.content or ""
    word = text.split()[3]
    cut = client.chat.completions.create(
        model="guide", messages=QUESTION, temperature=0, stop=[word]
    )
    assert cut.choices[0].message.content == text[: text.index(word)]


def test_n_gives_as_many_choices(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="guide", messages=QUESTION, n=2, temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1]


def test_seed_repeats_a_sample(client: OpenAI) -> None:
    def sample(seed: int) -> str | None:
        answer = client.completions.create(
            model="guide", prompt="The", max_tokens=24, temperature=2.0, top_p=1.0, seed=seed
        )
        return answer.choices[0].text

    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_logprobs_come_with_the_tokens(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="guide", messages=QUESTION, logprobs=True, top_logprobs=3, max_tokens=4
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 4
    assert all(len(token.top_logprobs) == 3 for token in logprobs.content)
    assert all(token.logprob <= 0 for token in logprobs.content)


def test_json_schema_shapes_the_answer(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "size": {"type": "string", "enum": ["small", "large"]},
            "hosts": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
        },
        "required": ["size", "hosts"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="guide",
        messages=QUESTION,
        max_tokens=200,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "pool", "schema": schema, "strict": True},
        },
    )
    body = json.loads(answer.choices[0].message.content or "")
    assert set(body) == {"size", "hosts"}
    assert body["size"] in ("small", "large")
    assert 1 <= len(body["hosts"]) <= 3
    assert all(isinstance(item, int) for item in body["hosts"])


def test_client_side_timeout_leaves_the_platform_well(client: OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.005).chat.completions.create(
            model="guide", messages=QUESTION, max_tokens=1500, extra_body={"ignore_eos": True}
        )
    answer = client.chat.completions.create(model="guide", messages=QUESTION, max_tokens=2)
    assert answer.choices


def test_request_id_is_echoed_and_reaches_the_engine(client: OpenAI, platform) -> None:
    request_id = f"trace-{time.time_ns()}"
    raw = client.chat.completions.with_raw_response.create(
        model="guide", messages=QUESTION, extra_headers={"x-request-id": request_id}
    )
    assert raw.headers["x-request-id"] == request_id
    ours = raw.parse().id.removeprefix("chatcmpl-")  # the attempt's, which nobody else can choose
    eventually(lambda: ours in platform.penstock("logs", "guide").stdout, 5, "the engine names it")
    usage_id = ours.rpartition("-")[0]
    log = platform.data_dir / "logs" / "gateway.log"

    def answered() -> list[str]:
        lines = log.read_text().splitlines()
        return [line for line in lines if request_id in line and '"answered"' in line]

    (line,) = eventually(answered, 5, "the gateway logs the answer")
    assert usage_id in line


def test_own_request_id_is_given_where_none_came(client: OpenAI) -> None:
    first = client.chat.completions.with_raw_response.create(model="guide", messages=QUESTION)
    second = client.chat.completions.with_raw_response.create(model="guide", messages=QUESTION)
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
