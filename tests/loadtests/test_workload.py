import random
import statistics
from itertools import islice

import orjson
import pytest

from loadtests.client import Ask
from loadtests.measure import Failure, Outcome
from loadtests.mix import Mix, Part
from loadtests.prompts import Prompts
from loadtests.recordings import Row, Trace
from loadtests.workload import Agent, Chat, Conversation, Length, Session, Target, replay

PROMPTS = Prompts([f"w{number}" for number in range(50)], overhead=3)
TARGET = Target("m")


def body(ask: Ask | None) -> dict:
    assert ask is not None
    return orjson.loads(ask.body)


def outcome(text: str = "yes", failure: Failure | None = None) -> Outcome:
    return Outcome("chat", 0.0, 0.0, failure=failure, text=text)


def first_asks(workload: Chat, count: int, seed: int = 0) -> list[Ask]:
    sessions: list[Session] = list(islice(workload.sessions(TARGET, PROMPTS, seed), count))
    return [ask for session in sessions if (ask := session.next(None)) is not None]


def test_target_asks_for_usage_in_streams_only() -> None:
    streamed = orjson.loads(Target("m").body())
    assert streamed["stream_options"] == {"include_usage": True}
    whole = orjson.loads(Target("m", stream=False, ignore_eos=True, temperature=None).body())
    assert whole == {"model": "m", "stream": False, "ignore_eos": True}


def test_chat_has_the_lengths_it_was_given() -> None:
    (ask,) = first_asks(Chat(Length(40), Length(7)), 1)
    asked = body(ask)
    assert len(asked["messages"][0]["content"].split()) == 37  # and 3 of the template
    assert (asked["max_tokens"], ask.prompt_tokens, ask.path) == (7, 40, "/v1/chat/completions")


def test_chats_share_only_the_prefix_they_should() -> None:
    texts = [
        body(ask)["messages"][0]["content"].split()
        for ask in first_asks(Chat(Length(60), shared=20), 5)
    ]
    assert all(len(words) == 57 for words in texts)
    assert len({tuple(words[:21]) for words in texts}) == 1  # one more: all texts begin with it
    assert len({tuple(words[21:]) for words in texts}) == 5


def test_completion_is_asked_at_its_route() -> None:
    (ask,) = first_asks(Chat(Length(40), completion=True), 1)
    assert ask.path == "/v1/completions"
    assert len(body(ask)["prompt"].split()) == 37


def test_same_seed_gives_the_same_requests() -> None:
    assert first_asks(Chat(), 9, seed=1) == first_asks(Chat(), 9, seed=1)
    assert first_asks(Chat(), 9, seed=1) != first_asks(Chat(), 9, seed=2)


def test_single_visitor_leaves_after_one_request() -> None:
    session = next(Chat().sessions(TARGET, PROMPTS, 0))
    assert session.next(None) is not None
    assert session.next(outcome()) is None


def test_length_has_its_mean_and_spread_within_its_bounds() -> None:
    rng = random.Random(0)
    drawn = [Length(1000, 0.5).draw(rng) for _ in range(20_000)]
    assert statistics.mean(drawn) == pytest.approx(1000, rel=0.02)
    assert statistics.stdev(drawn) == pytest.approx(500, rel=0.05)
    bounded = [Length(1000, 2.0, 10, 2000).draw(rng) for _ in range(1000)]
    assert (min(bounded) >= 10, max(bounded)) == (True, 2000)
    with pytest.raises(ValueError, match="length"):
        Length(0)


def test_conversation_repeats_what_was_said() -> None:
    workload = Conversation(system=10, turns=Length(3), prompt=Length(5), pause_s=2.0)
    first, other = islice(workload.sessions(TARGET, PROMPTS, 0), 2)
    asks = [first.next(None), first.next(outcome("one")), first.next(outcome("two"))]
    assert first.next(outcome("three")) is None
    said = [body(ask)["messages"] for ask in asks]
    assert [message["role"] for message in said[2]] == [
        "system", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    assert said[1][:2] == said[0]
    assert said[2][:4] == said[1]
    assert [said[2][2]["content"], said[2][4]["content"]] == ["one", "two"]
    assert body(other.next(None))["messages"][0] == said[0][0]  # the same system prompt
    assert [ask.delay_s > 0 for ask in asks] == [False, True, True]
    assert all(ask.keep_text for ask in asks)


def test_conversation_ends_with_a_failure() -> None:
    session = next(Conversation(turns=Length(3)).sessions(TARGET, PROMPTS, 0))
    session.next(None)
    assert session.next(outcome(failure=Failure.RESET)) is None


def test_agent_declares_its_tool_and_grows() -> None:
    session = next(Agent(rounds=Length(3)).sessions(TARGET, PROMPTS, 0))
    asks = [session.next(None), session.next(outcome()), session.next(outcome())]
    assert session.next(outcome()) is None
    assert body(asks[0])["tools"][0]["function"]["name"] == "read_file"
    assert len(asks[0].body) < len(asks[1].body) < len(asks[2].body)
    assert "tools" not in body(next(Agent(tools=False).sessions(TARGET, PROMPTS, 0)).next(None))


def test_mix_draws_by_weight() -> None:
    mix = Mix((Part(3.0, Chat(kind="a")), Part(1.0, Chat(kind="b"))))
    asks = [session.next(None) for session in islice(mix.sessions(TARGET, PROMPTS, 1), 1000)]
    share = sum(ask.kind == "a" for ask in asks if ask) / 1000
    assert share == pytest.approx(0.75, abs=0.05)


def test_replay_gives_equal_blocks_equal_text() -> None:
    rows = (
        Row(0.0, 40, 5, (1, 2, 3)),
        Row(0.5, 43, 6, (1, 2, 4)),
        Row(1.0, 20, 0, ()),
    )
    sessions = replay(Trace(rows, block_tokens=16), TARGET, Prompts(PROMPTS.words, overhead=0))
    bodies = [body(session.next(None)) for session in sessions]
    prompts = [asked["prompt"].split() for asked in bodies]
    assert [len(prompt) for prompt in prompts] == [40, 43, 20]
    assert prompts[0][:33] == prompts[1][:33]  # two blocks, after the word that all begin with
    assert prompts[0][33:40] != prompts[1][33:40]
    assert [asked["max_tokens"] for asked in bodies] == [5, 6, 1]
