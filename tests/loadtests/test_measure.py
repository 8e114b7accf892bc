import orjson
import pytest

from loadtests.measure import Failure, Outcome, Ruler

DONE = b"data: [DONE]\n\n"


def event(**fields: object) -> bytes:
    return b"data: " + orjson.dumps(fields) + b"\n\n"


def piece(text: str, index: int = 0, finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return event(choices=[choice])


def usage(prompt: int, completion: int, cached: int | None = None) -> bytes:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    counted = {"prompt_tokens": prompt, "completion_tokens": completion} | details
    return event(choices=[], usage=counted)


def measured(*parts: tuple[float, bytes], status: int = 200, stream: bool = True) -> Outcome:
    """A request that was due at 9 s, sent at 10 s and ended a second after its last part."""
    ruler = Ruler("chat", 9.0, 10.0, stream=stream, keep_text=True)
    ruler.head(status)
    for at_s, data in parts:
        ruler.data(at_s, data)
    return ruler.end(parts[-1][0] + 1.0)


def test_times_follow_the_definitions() -> None:
    outcome = measured(
        (10.1, event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])),
        (10.2, piece("a")),
        (10.3, piece("b")),
        (10.6, piece("c", finish="length")),
        (10.8, usage(7, 5, cached=4)),
        (10.8, DONE),
    )
    assert outcome.ok
    assert outcome.lag_s == pytest.approx(1.0)
    assert outcome.ttft_s == pytest.approx(0.2)  # not at the role
    assert outcome.e2e_s == pytest.approx(0.6)  # not at the usage, nor at the end
    assert list(outcome.gaps_s) == pytest.approx([0.1, 0.3])
    assert outcome.tpot_s == pytest.approx(0.1)  # 0.4 s for 4 tokens, though in two chunks
    assert (outcome.prompt_tokens, outcome.cached_tokens, outcome.output_tokens) == (7, 4, 5)
    assert outcome.text == "abc"
    assert not outcome.usage_missing


def test_finish_chunk_without_content_counts_for_the_end_only() -> None:
    outcome = measured(
        (10.2, piece("a")), (10.3, piece("b")), (10.5, piece("", finish="stop")), (10.5, DONE)
    )
    assert list(outcome.gaps_s) == pytest.approx([0.1])
    assert outcome.e2e_s == pytest.approx(0.5)


def test_each_choice_has_its_own_gaps() -> None:
    outcome = measured(
        (10.2, piece("a", 0)),
        (10.3, piece("x", 1)),
        (10.4, piece("b", 0)),
        (10.6, piece("y", 1)),
        (10.6, DONE),
    )
    assert list(outcome.gaps_s) == pytest.approx([0.2, 0.3])
    assert outcome.ttft_s == pytest.approx(0.2)


def test_completions_reasoning_and_tool_calls_count_as_content() -> None:
    for choice in (
        {"index": 0, "text": "a"},
        {"index": 0, "delta": {"reasoning_content": "hm"}},
        {"index": 0, "delta": {"reasoning": "hm"}},
        {"index": 0, "delta": {"tool_calls": [{"index": 0}]}},
    ):
        outcome = measured((10.2, event(choices=[choice])), (10.3, DONE))
        assert outcome.ttft_s == pytest.approx(0.2)


def test_missing_usage_is_noted_and_chunks_are_counted_instead() -> None:
    outcome = measured((10.2, piece("a")), (10.4, piece("b")), (10.4, DONE))
    assert outcome.ok
    assert outcome.usage_missing
    assert outcome.output_tokens == 2
    assert outcome.prompt_tokens is None


def test_tokens_without_a_text_are_an_answer_that_is_noted() -> None:
    outcome = measured((10.2, piece("", finish="stop")), (10.3, usage(3, 1)), (10.3, DONE))
    assert (outcome.ok, outcome.text_missing) == (True, True)
    assert outcome.ttft_s == outcome.e2e_s == pytest.approx(0.2)


def test_one_token_has_no_tpot() -> None:
    outcome = measured((10.2, piece("a")), (10.2, usage(3, 1)), (10.2, DONE))
    assert outcome.tpot_s is None


@pytest.mark.parametrize(
    ("parts", "failure"),
    [
        ([b"data: {\n\n", DONE], Failure.MALFORMED),
        ([b"data: 7\n\n", DONE], Failure.MALFORMED),
        ([b'data: {"choices": [3]}\n\n', DONE], Failure.MALFORMED),
        ([piece("a"), DONE, b"data: more"], Failure.MALFORMED),
        ([piece("a"), event(error={"message": "died"})], Failure.ERROR_EVENT),
        ([piece("a")], Failure.TRUNCATED),
        ([piece(""), DONE], Failure.EMPTY),
        ([DONE], Failure.EMPTY),
        ([piece(""), usage(3, 0), DONE], Failure.EMPTY),
    ],
)
def test_stream_that_is_wrong_is_a_named_failure(parts: list[bytes], failure: Failure) -> None:
    outcome = measured(*((10.2, part) for part in parts))
    assert outcome.failure is failure


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (429, Failure.RATE_LIMITED), (404, Failure.REJECTED), (400, Failure.REJECTED),
        (500, Failure.SERVER_ERROR), (503, Failure.SERVER_ERROR), (204, Failure.MALFORMED),
    ],
)  # fmt: skip
def test_status_is_a_named_failure_with_the_body_as_detail(status: int, failure: Failure) -> None:
    outcome = measured((10.2, b'{"error": 1}'), status=status)
    assert (outcome.failure, outcome.detail) == (failure, '{"error": 1}')
    assert outcome.ttft_s is None


def test_broken_stream_keeps_what_came_before() -> None:
    ruler = Ruler("chat", 10.0, 10.0, stream=True)
    ruler.head(200)
    ruler.data(10.2, piece("a"))
    outcome = ruler.broken(Failure.RESET, "gone")
    assert (outcome.failure, outcome.detail, outcome.chunks) == (Failure.RESET, "gone", 1)


def test_first_failure_wins() -> None:
    ruler = Ruler("chat", 10.0, 10.0, stream=True)
    ruler.head(500)
    assert ruler.broken(Failure.RESET).failure is Failure.SERVER_ERROR


def test_whole_answer_arrives_at_once() -> None:
    body = {
        "choices": [{"index": 0, "message": {"content": "hi"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    outcome = measured((10.2, orjson.dumps(body)), stream=False)
    assert outcome.ok
    assert outcome.ttft_s == outcome.e2e_s == pytest.approx(1.2)
    assert (outcome.text, outcome.output_tokens) == ("hi", 2)


def test_embedding_is_an_answer_without_choices() -> None:
    body = {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    outcome = measured((10.2, orjson.dumps(body)), stream=False)
    assert outcome.ok
    assert (outcome.prompt_tokens, outcome.output_tokens) == (3, 0)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"choices": []}', b"<html>"])
def test_whole_answer_that_is_wrong_is_a_failure(body: bytes) -> None:
    assert not measured((10.2, body), stream=False).ok
