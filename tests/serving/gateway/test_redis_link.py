"""The connection to Redis, fed by hand: answers in pieces, errors, and what a URL says."""

import asyncio
from typing import cast

import pytest

from serving.gateway.redis_link import (
    Answer,
    NoScriptError,
    RedisAddress,
    RedisLink,
    RedisLinkError,
    command,
)


class Wire:
    """What was written, instead of a socket."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


def link() -> tuple[RedisLink, Wire]:
    made, wire = RedisLink(), Wire()
    made.connection_made(cast("asyncio.Transport", wire))
    return made, wire


def test_command_is_an_array_of_strings() -> None:
    assert command(b"AUTH", b"a b") == b"*2\r\n$4\r\nAUTH\r\n$3\r\na b\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_answers_come_in_their_order_however_they_are_cut(size: int) -> None:
    asked, _ = link()
    got: list[Answer] = []
    for _ in range(5):
        asked.ask(b"x", got.append)
    stream = b"+OK\r\n$7\r\n1\r\n 2 3\r\n:42\r\n$-1\r\n-NOSCRIPT no such\r\n"
    for start in range(0, len(stream), size):
        asked.data_received(stream[start : start + size])
    assert got[:4] == [b"OK", b"1\r\n 2 3", b"42", None]
    assert isinstance(got[4], NoScriptError)


def test_all_who_wait_are_told_when_the_connection_breaks() -> None:
    asked, _ = link()
    got: list[Answer] = []
    asked.ask(b"x", got.append)
    asked.ask(b"x", got.append)
    asked.connection_lost(ConnectionResetError("gone"))
    asked.ask(b"x", got.append)
    assert len(got) == 3
    assert all(isinstance(answer, RedisLinkError) for answer in got)


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400\r\n", b"$x\r\n", b"+OK\r\n+OK\r\n"])
def test_another_protocol_ends_the_connection(nonsense: bytes) -> None:
    asked, wire = link()
    asked.ask(b"x", lambda _: None)
    asked.data_received(nonsense)
    assert wire.aborted
    assert asked.closed


def test_url_says_where_and_who() -> None:
    assert RedisAddress.of("redis://h:1/2") == RedisAddress("h", 1, None, 2)
    assert RedisAddress.of("redis://h") == RedisAddress("h")
    named = RedisAddress.of("redis://me:p%40ss@h:1?db=3")
    assert (named.username, named.password, named.database) == ("me", "p@ss", 3)
    assert RedisAddress.of("unix:///run/r.sock?db=1").path == "/run/r.sock"
    assert RedisAddress.of("rediss://h").tls is not None


@pytest.mark.parametrize(
    "url",
    ["http://h", "redis://h/x", "redis://:secret/1@h", "redis://h?secret=1", "redis://h:secret"],
)
def test_bad_url_is_refused_without_a_word_of_its_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="Redis URL") as caught:
        RedisAddress.of(url)
    assert "secret/1" not in str(caught.value)
    assert ":secret" not in str(caught.value)
