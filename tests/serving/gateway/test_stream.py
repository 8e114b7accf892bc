"""Lines and error events of a stream."""

import pytest

from serving.gateway.stream import WholeLines, split_at_error, status_in_error


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
