import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.sse import EventStream

STREAM = (
    b": ping\n\ndata: one\n\nevent: x\r\ndata: two\r\ndata:three\r\n\r\nid: 1\ndata\n\n"
    b"data:  four \r\rdata: cut"
)
EVENTS = [b"one", b"two\nthree", b"", b" four "]


@given(seed=st.integers(0, 10_000))
def test_events_are_the_same_however_the_bytes_are_cut(seed: int) -> None:
    rng = random.Random(seed)
    stream, events, at = EventStream(), [], 0
    while at < len(STREAM):
        size = rng.randint(1, 9)
        events += stream.feed(STREAM[at : at + size])
        at += size
    assert events == EVENTS
    assert stream.cut_off


@pytest.mark.parametrize(
    ("text", "cut_off"),
    [(b"data: x\n\n", False), (b"data: x\n", True), (b"dat", True), (b"", False)],
)
def test_stream_knows_whether_it_was_cut_off(text: bytes, cut_off: bool) -> None:
    stream = EventStream()
    stream.feed(text)
    assert stream.cut_off is cut_off
