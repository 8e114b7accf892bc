"""Messages between host and launcher survive the wire, and nonsense does not."""

from pathlib import Path

import pytest

from models.errors import BadRequestError
from serving.engine.launch_protocol import (
    Event,
    Exited,
    Forked,
    Hello,
    HelloRequest,
    Reached,
    Refused,
    SpawnRequest,
    decode_event,
    decode_request,
    encode,
)
from serving.protocol import StartPhase

SPAWN = SpawnRequest(
    engine_id="e1",
    args=("--model=/w", "--x"),
    environment={"A": "b\nc"},
    token="secret",
    log_path=Path("/var/log/e1.log"),
    memory_gib=1.5,
    gpus=("0",),
    mode="exec",
)


@pytest.mark.parametrize("request_", [HelloRequest(), SPAWN], ids=["hello", "spawn"])
def test_request_survives_the_wire_as_one_line(request_: HelloRequest | SpawnRequest) -> None:
    line = encode(request_)
    assert line.count(b"\n") == 1
    assert decode_request(line) == request_


@pytest.mark.parametrize(
    "event",
    [
        Hello(pid=1, build="vllm 0.32.0", engines=("e1",)),
        Refused(reason="no", hint=None),
        Forked(pid=2, port=3, mode="fork", at=4.5),
        Reached(phase=StartPhase.WEIGHTS, at=5.5),
        Exited(code=None, signal="SIGKILL", cause="killed"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_event_survives_the_wire(event: Event) -> None:
    assert decode_event(encode(event)) == event


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b"\xff", b'{"op": "spawn"}', b'{"op": "dance"}']
)
def test_nonsense_is_a_bad_request(line: bytes) -> None:
    with pytest.raises(BadRequestError, match="not a request to a launcher"):
        decode_request(line)


def test_field_of_a_newer_peer_is_ignored() -> None:
    assert decode_request(b'{"op": "hello", "colour": "blue"}') == HelloRequest()


def test_token_is_not_shown() -> None:
    assert "secret" not in repr(SPAWN)
