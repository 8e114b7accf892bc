import random
import zlib
from collections.abc import Awaitable, Callable

import pytest

from loadtests.client import Client, ServerError
from loadtests.prompts import counter, learn
from loadtests.workload import CHAT, COMPLETIONS, EMBEDDINGS


def tokenizer(*, overhead: int, long_words: bool = False) -> Callable[[str], Awaitable[int]]:
    """Like a BPE tokenizer: some words are one token, some are two or three; the first word of a
    text, which has no space before it, goes by a rule of its own."""

    async def count(text: str) -> int:
        first, *words = text.split()
        tokens = overhead + 1 + (zlib.crc32(first.encode()) % 2 if long_words else 0)
        return tokens + sum(
            1 + (zlib.crc32(word.encode()) % 3 if long_words else 0) for word in words
        )

    return count


@pytest.mark.parametrize("overhead", [0, 1, 17])
async def test_prompt_measures_exactly_what_was_asked_for(overhead: int) -> None:
    count = tokenizer(overhead=overhead, long_words=True)
    prompts = await learn(count)
    assert overhead <= prompts.overhead <= overhead + 1  # the first word may be two tokens
    rng = random.Random(0)
    for tokens in (prompts.overhead + 1, 100, 1234):
        assert await count(prompts.text(tokens, rng)) == tokens
    start = prompts.draw(50, rng)
    text = prompts.text(100, rng, start)
    assert await count(text) == 100
    assert text.split()[1:51] == start
    assert 64 <= len(prompts.words) < 80


async def test_prompts_follow_from_the_seed() -> None:
    prompts = await learn(tokenizer(overhead=0))
    assert prompts.text(50, random.Random(1)) == prompts.text(50, random.Random(1))
    assert prompts.text(50, random.Random(1)) != prompts.text(50, random.Random(2))


async def test_tokenizer_that_does_not_add_up_is_refused() -> None:
    async def merges_everything(text: str) -> int:
        return len(text.split()) // 7 + 1

    with pytest.raises(ServerError, match="one token"):
        await learn(merges_everything)

    async def shrinks_when_long(text: str) -> int:
        words = len(text.split())
        return words if words < 400 else words - 1

    with pytest.raises(ServerError, match="measures"):
        await learn(shrinks_when_long)


@pytest.mark.parametrize(("path", "overhead"), [(CHAT, 3), (COMPLETIONS, 0), (EMBEDDINGS, 0)])
async def test_server_counts_by_its_tokenize_route(start, path: str, overhead: int) -> None:
    url = await start()
    async with Client(url) as client:
        prompts = await learn(await counter(client, "fake", path))
        _status, metrics = await client.call("/metrics")
    assert prompts.overhead == overhead  # <|user|>, <|end|>, <|assistant|>
    assert b'vllm:prompt_tokens_total{engine="0",model_name="fake"} 0.0' in metrics


@pytest.mark.parametrize(("path", "overhead"), [(CHAT, 3), (EMBEDDINGS, 0)])
async def test_server_without_tokenize_counts_by_its_usage(start, path: str, overhead: int) -> None:
    url = await start()

    class WithoutTokenize(Client):
        async def call(self, path: str, body: object = None) -> tuple[int, bytes]:
            return (404, b"{}") if path == "/tokenize" else await super().call(path, body)

    async with WithoutTokenize(url) as client:
        prompts = await learn(await counter(client, "fake", path))
    assert prompts.overhead == overhead


async def test_server_that_counts_nothing_is_refused(start) -> None:
    url = await start(token="secret")
    async with Client(url) as client:
        with pytest.raises(ServerError, match="401"):
            await counter(client, "fake", CHAT)
