"""The fake engine over loopback; what happens when is tested in test_batching, without a clock."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from loadtests.fake.batching import Shape
from loadtests.fake.timeline import Schedule


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def chat(content: str = "hello there", **fields: object) -> dict[str, object]:
    body = {"model": "fake", "messages": [{"role": "user", "content": content}], "max_tokens": 4}
    return body | fields


async def events(response: aiohttp.ClientResponse) -> list[dict]:
    """The parsed chunks of a stream that ends with [DONE]."""
    text = await response.text()
    *chunks, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [orjson.loads(chunk.removeprefix("data: ")) for chunk in chunks]


async def metric(client: aiohttp.ClientSession, url: str, name: str) -> float:
    text = await (await client.get(f"{url}/metrics")).text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"vllm:{name}{{")]
    return float(line.split()[-1])


async def test_chat_stream_has_role_content_finish_and_usage(start, client) -> None:
    url = await start()
    body = chat(stream=True, stream_options={"include_usage": True})
    async with client.post(f"{url}/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        chunks = await events(response)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert len([delta for delta in deltas if delta.get("content")]) == 4
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    assert finishes == [None] * 4 + ["length"]  # as vLLM: with the last token
    # <|user|> hello there <|end|> <|assistant|>
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_stream_and_whole_answer_say_the_same(start, client) -> None:
    url = await start()
    async with client.post(f"{url}/v1/chat/completions", json=chat()) as response:
        whole = await response.json()
    async with client.post(f"{url}/v1/chat/completions", json=chat(stream=True)) as response:
        chunks = await events(response)
    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": streamed}
    assert len(streamed.split()) == 4
    assert not any("usage" in chunk for chunk in chunks)


async def test_completion_takes_texts_and_token_ids_and_several(start, client) -> None:
    url = await start()
    for prompt, prompt_tokens, choices in (
        ("a b c", 3, 1),
        ([5, 6], 2, 1),
        (["a b", "c"], 3, 2),
        ([[1], [2, 3]], 3, 2),
    ):
        body = {"model": "fake", "prompt": prompt, "max_tokens": 2}
        async with client.post(f"{url}/v1/completions", json=body) as response:
            answer = await response.json()
        assert answer["usage"]["prompt_tokens"] == prompt_tokens
        assert answer["usage"]["completion_tokens"] == 2 * choices
        assert [choice["index"] for choice in answer["choices"]] == list(range(choices))


async def test_n_choices_share_one_prompt(start, client) -> None:
    url = await start()
    body = chat(n=3, stream=True, stream_options={"include_usage": True})
    async with client.post(f"{url}/v1/chat/completions", json=body) as response:
        chunks = await events(response)
    texts = ["", "", ""]
    for chunk in chunks[:-1]:
        choice = chunk["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert [len(text.split()) for text in texts] == [4, 4, 4]
    assert chunks[-1]["usage"]["prompt_tokens"] == 5
    assert chunks[-1]["usage"]["completion_tokens"] == 12


async def test_reply_without_max_tokens_has_the_default_length_and_stops(start, client) -> None:
    url = await start(default_tokens=6)
    async with client.post(f"{url}/v1/chat/completions", json=chat(max_tokens=None)) as response:
        answer = await response.json()
    assert answer["usage"]["completion_tokens"] == 6
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_second_turn_finds_the_first_in_the_prefix_cache(start, client) -> None:
    url = await start()
    messages = [{"role": "user", "content": "word " * 100}]
    cached = []
    for _turn in range(3):
        body = {"model": "fake", "messages": messages, "max_tokens": 30}
        async with client.post(f"{url}/v1/chat/completions", json=body) as response:
            answer = await response.json()
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        messages += [answer["choices"][0]["message"], {"role": "user", "content": "go on"}]
    # Turn 1 leaves 103 prompt + 29 reply tokens (8 full blocks), turn 2 5 + 30 more (10 blocks).
    assert cached == [0, 128, 160]
    assert await metric(client, url, "prefix_cache_hits_total") == 288
    assert await metric(client, url, "generation_tokens_total") == 90


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/chat/completions", b"{", 400, None),
        ("/v1/chat/completions", b'{"model": "fake"}', 400, "messages"),
        ("/v1/chat/completions", orjson.dumps(chat(max_tokens=0)), 400, "max_tokens"),
        ("/v1/chat/completions", orjson.dumps(chat(model="other")), 404, "model"),
        ("/v1/chat/completions", orjson.dumps(chat(max_tokens=1_000_000)), 400, None),
        ("/v1/completions", b'{"model": "fake", "prompt": ""}', 400, "prompt"),
        ("/v1/nothing", b"{}", 404, None),
        ("/v1/models", b"{}", 405, None),
        ("/tokenize", b"{}", 400, "prompt"),
    ],
)
async def test_bad_request_gets_an_error_in_openai_shape(
    start, client, path: str, body: bytes, status: int, param: str | None
) -> None:
    url = await start()
    async with client.post(url + path, data=body) as response:
        assert response.status == status
        error = (await response.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param


async def test_every_route_asks_for_the_token(start, client) -> None:
    url = await start(token="secret")
    for path in ("/health", "/metrics", "/v1/models"):
        assert (await client.get(url + path)).status == 401
        headers = {"authorization": "Bearer secret"}
        assert (await client.get(url + path, headers=headers)).status == 200


async def test_tokenize_counts_what_the_usage_will_say(start, client) -> None:
    url = await start()
    body = {"model": "fake", "messages": [{"role": "user", "content": "one two three"}]}
    async with client.post(f"{url}/tokenize", json=body) as response:
        counted = await response.json()
    async with client.post(f"{url}/v1/chat/completions", json=body) as response:
        answer = await response.json()
    assert counted["count"] == len(counted["tokens"]) == answer["usage"]["prompt_tokens"]


async def test_models_lists_the_model_with_its_context(start, client) -> None:
    url = await start(model="m", max_model_len=512)
    async with client.get(f"{url}/v1/models") as response:
        (model,) = (await response.json())["data"]
    assert (model["id"], model["max_model_len"]) == ("m", 512)


async def test_client_that_leaves_frees_its_slot_at_once(start, client) -> None:
    url = await start(Shape(slots=1, step_s=0.005))
    body = chat(stream=True, max_tokens=50_000)
    async with client.post(f"{url}/v1/chat/completions", json=body) as response:
        await response.content.readany()
        assert await metric(client, url, "num_requests_running") == 1
        response.close()
    async with asyncio.timeout(30):
        while await metric(client, url, "num_requests_running"):
            pass
        async with client.post(f"{url}/v1/chat/completions", json=chat()) as response:
            assert response.status == 200


async def test_answers_on_one_connection_come_in_order(start) -> None:
    url = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    for max_tokens in (5, 2):
        body = orjson.dumps(chat(max_tokens=max_tokens))
        head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
    for max_tokens in (5, 2):
        head_text = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head_text.partition("content-length: ")[2].split()[0])
        answer = orjson.loads(await reader.readexactly(length))
        assert answer["usage"]["completion_tokens"] == max_tokens
    writer.close()
    await writer.wait_closed()


async def test_chunks_report_when_they_were_due(start, client) -> None:
    url = await start(schedule=Schedule(0.02, 0.01, spread=0.5), report_due=True)
    sent_s = time.monotonic()
    body = chat(stream=True, seed=11)
    async with client.post(f"{url}/v1/chat/completions", json=body) as response:
        chunks = await events(response)
    due = [chunk["penstock_due_s"] for chunk in chunks if "penstock_due_s" in chunk]
    offsets = Schedule(0.02, 0.01, spread=0.5).offsets(11, 4)
    assert [at_s - due[0] for at_s in due] == pytest.approx(
        [offset - offsets[0] for offset in offsets], abs=2e-6
    )
    # The answer arrived no earlier than due.
    assert sent_s < due[0] < due[-1] < time.monotonic()


@pytest.mark.parametrize(("fault", "status"), [("429", 429), ("500", 500), ("503", 503)])
async def test_fault_with_a_status_answers_it(start, client, fault: str, status: int) -> None:
    url = await start(faults=(f"{fault}:request=1",))
    statuses = []
    for _ in range(2):
        async with client.post(f"{url}/v1/chat/completions", json=chat()) as response:
            statuses.append(response.status)
            assert ("error" in await response.json()) == (response.status != 200)
    assert statuses == [status, 200]


async def test_fault_reset_before_the_first_byte_drops_the_connection(start, client) -> None:
    url = await start(faults=("reset",))
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.post(f"{url}/v1/chat/completions", json=chat(stream=True))
    assert await metric(client, url, "num_requests_running") == 0


@pytest.mark.parametrize("fault", ["reset:token=2", "truncate:token=2", "malformed:token=2"])
async def test_fault_in_the_middle_comes_after_its_token(start, client, fault: str) -> None:
    url = await start(faults=(fault,))
    text = b""
    async with client.post(f"{url}/v1/chat/completions", json=chat(stream=True)) as response:
        try:
            async for data in response.content.iter_any():
                text += data
        except aiohttp.ClientPayloadError:
            assert fault.startswith("reset")
    assert text.count(b'"content":') == (5 if fault.startswith("malformed") else 3)
    assert (b"[DONE]" in text) == fault.startswith("malformed")


async def test_fault_hang_keeps_the_connection_and_then_the_client_leaves(start, client) -> None:
    url = await start(faults=("hang:token=1",))
    timeout = aiohttp.ClientTimeout(total=0.2)
    with pytest.raises(TimeoutError):
        async with client.post(
            f"{url}/v1/chat/completions", json=chat(stream=True), timeout=timeout
        ) as response:
            await response.read()


async def test_fault_hang_engine_stops_everybody_until_faults_are_replaced(start, client) -> None:
    url = await start(faults=("hang-engine:request=1,token=1",))
    first = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=chat()))
    second = asyncio.create_task(
        client.post(f"{url}/v1/chat/completions", json=chat(max_tokens=40))
    )
    done, _ = await asyncio.wait([first, second], timeout=0.2)
    assert not done
    assert (await client.get(f"{url}/health")).status == 200
    assert (await client.put(f"{url}/fake/faults", data=b"[]")).status == 200
    assert (await second).status == 200
    first.cancel()


async def test_fault_no_usage_leaves_it_out(start, client) -> None:
    url = await start(faults=("no-usage",))
    body = chat(stream=True, stream_options={"include_usage": True})
    async with client.post(f"{url}/v1/chat/completions", json=body) as response:
        chunks = await events(response)
    assert not any("usage" in chunk for chunk in chunks)


async def test_fault_empty_streams_no_content(start, client) -> None:
    url = await start(faults=("empty",))
    async with client.post(f"{url}/v1/chat/completions", json=chat(stream=True)) as response:
        chunks = await events(response)
    assert not any(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


async def test_fault_that_is_unknown_is_refused(start, client) -> None:
    url = await start()
    assert (await client.put(f"{url}/fake/faults", data=b'["melt"]')).status == 400
