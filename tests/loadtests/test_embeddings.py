from itertools import islice

import orjson
import pytest

from loadtests.client import Client
from loadtests.embeddings import Embeddings
from loadtests.execute import execute, prepare
from loadtests.profile import ProfileError, read
from loadtests.prompts import Prompts
from loadtests.workload import Length, Target

PROMPTS = Prompts([f"w{number}" for number in range(50)], overhead=1)


def test_batch_has_texts_of_the_length_that_was_asked_for() -> None:
    workload = Embeddings(Length(10), batch=3)
    (visitor,) = islice(workload.sessions(Target("m"), PROMPTS, 0), 1)
    ask = visitor.next(None)
    assert ask is not None
    fields = orjson.loads(ask.body)
    assert (ask.path, ask.stream, ask.prompt_tokens) == ("/v1/embeddings", False, 30)
    assert set(fields) == {"model", "input"}
    assert [len(text.split()) for text in fields["input"]] == [9, 9, 9]


async def test_embeddings_of_a_server_are_measured(start) -> None:
    url = await start()
    profile = read(
        {"workload": {"type": "embeddings", "batch": 2}, "load": {"type": "closed", "requests": 5}}
    )
    async with Client(url) as client:
        run = await execute(await prepare(client, None, profile), profile, seed=0)
    assert [outcome.failure for outcome in run.outcomes] == [None] * 5
    one = run.outcomes[0]
    assert (one.prompt_tokens, one.wanted_prompt_tokens, one.output_tokens) == (512, 512, 0)
    assert one.e2e_s == one.ttft_s
    assert one.tpot_s is None


async def test_embeddings_beside_chats_in_a_mix(start) -> None:
    url = await start()
    parts = [
        {"weight": 1, "workload": {"type": "chat", "prompt": {"mean": 20}, "output": {"mean": 2}}},
        {"weight": 1, "workload": {"type": "embeddings", "model": "fake", "prompt": {"mean": 9}}},
    ]
    profile = read(
        {"workload": {"type": "mix", "parts": parts}, "load": {"type": "closed", "requests": 20}}
    )
    async with Client(url) as client:
        run = await execute(await prepare(client, None, profile), profile, seed=0)
    assert {outcome.kind for outcome in run.outcomes if outcome.ok} == {"chat", "embeddings"}


def test_empty_batch_is_refused() -> None:
    with pytest.raises(ProfileError, match="at least one text"):
        read({"workload": {"type": "embeddings", "batch": 0}})
