"""Lines and error events of a stream."""

import pytest

from serving.gateway.stream import Transcript, WholeLines, split_at_error, status_in_error
from serving.gateway.tokens import Tokens
from tests.serving.gateway.fake_engine import STREAM, USAGE


def test_whole_lines_pass_as_they_are() -> None:
    chunk = b"data: 1\n\ndata: 2\n\n"
    assert WholeLines().feed(chunk) is chunk


def test_begun_line_is_held_back_until_it_ends() -> None:
    lines = WholeLines()
    assert lines.feed(b"data: 1\n\nda") == b"data: 1\n\n"
    assert lines.feed(b"ta: ") == b""
    assert lines.feed(b"2\n\n") == b"data: 2\n\n"
    assert lines.rest() == b""


def test_rest_without_a_line_end_is_not_lost() -> None:
    lines = WholeLines()
    assert lines.feed(b"data: 1") == b""
    assert lines.rest() == b"data: 1"


def test_error_event_is_split_from_what_precedes_it() -> None:
    chunk = b'data: {"id": 1}\n\ndata: {"error": {"code": 500}}\n\ndata: [DONE]\n\n'
    assert split_at_error(chunk) == (b'data: {"id": 1}\n\n', b'{"error": {"code": 500}}')


def test_text_about_errors_is_no_error_event() -> None:
    chunk = b'data: {"content": "data: {\\"error\\": 1}"}\n\n'
    assert split_at_error(chunk) == (chunk, b"")


@pytest.mark.parametrize(
    ("error", "status"),
    [(b'{"error": {"code": 400}}', 400), (b'{"error": {"code": "x"}}', 500),
     (b'{"error": "x"}', 500), (b'{"error', 500), (b'{"error": {"code": 200}}', 500)],
)  # fmt: skip
def test_status_of_an_error_event_is_500_unless_it_says_better(error: bytes, status: int) -> None:
    assert status_in_error(error) == status


def test_transcript_passes_parts_on_untouched_and_counts_them() -> None:
    transcript = Transcript(hide_usage=True)
    for part in STREAM:
        assert transcript.read(part) is part
    assert transcript.delivered == len(STREAM) - 1  # the end is no part of the answer
    assert transcript.tokens is None


@pytest.mark.parametrize("hide", [True, False])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_transcript_notes_usage_and_hides_it_if_told_to(hide: bool, size: int) -> None:
    transcript = Transcript(hide_usage=hide)
    parts = (*STREAM[:-1], USAGE, STREAM[-1])
    said = b"".join(
        transcript.read(b"".join(parts[at : at + size])) for at in range(0, len(parts), size)
    )
    assert said == b"".join(STREAM if hide else parts)
    assert transcript.tokens == Tokens(prompt=3, completion=6, cached=2)
    assert transcript.delivered == len(STREAM) - 1


def test_usage_alone_is_hidden_whatever_line_ends_a_server_has() -> None:
    transcript = Transcript(hide_usage=True)
    said = transcript.read(b"".join((STREAM[0], USAGE, STREAM[-1])).replace(b"\n", b"\r\n"))
    assert said == (STREAM[0] + STREAM[-1]).replace(b"\n", b"\r\n")
    assert transcript.tokens == Tokens(prompt=3, completion=6, cached=2)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_hidden_usage_takes_no_end_of_another_event_with_it(line_end: bytes) -> None:
    whole = (STREAM[0] + USAGE + STREAM[-1]).replace(b"\n", line_end)
    for at in range(1, len(whole)):
        transcript, lines = Transcript(hide_usage=True), WholeLines()
        said = b"".join(
            transcript.read(whole_lines)
            for part in (whole[:at], whole[at:])
            if (whole_lines := lines.feed(part))
        )
        events = [one for one in said.replace(b"\r\n", b"\n").split(b"\n\n") if one.strip()]
        assert [one.strip() for one in events] == [STREAM[0].strip(), STREAM[-1].strip()]


def test_transcript_does_not_count_the_event_that_only_names_the_role() -> None:
    role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    transcript = Transcript(hide_usage=True)
    transcript.read(role + STREAM[0])
    assert transcript.delivered == 1


def test_usage_in_continuous_chunks_is_left_alone() -> None:
    chunk = b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    transcript = Transcript(hide_usage=True)
    assert transcript.read(chunk) == chunk
    assert (transcript.tokens, transcript.delivered) == (Tokens(3, 1), 1)
