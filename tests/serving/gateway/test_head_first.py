"""An answer's head goes out with the first part of its body, and is never left behind."""

from types import SimpleNamespace
from typing import cast

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.gateway.connection import HeadFirst, Tenant, TenantConnection

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Wire:
    """A transport that notes what it is asked."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@pytest.fixture
def cycle() -> SimpleNamespace:
    cycle = SimpleNamespace(transport=Wire())
    cycle.wire = cycle.transport
    cycle.transport = HeadFirst(cast("RequestResponseCycle", cycle))
    return cycle


def test_head_goes_out_with_the_first_part_and_the_rest_by_itself(cycle: SimpleNamespace) -> None:
    for part in (HEAD, b"one", b"two"):
        cycle.transport.write(part)
    assert cycle.wire.written == [HEAD + b"one", b"two"]
    assert cycle.transport is cycle.wire


def test_empty_body_lets_the_head_go(cycle: SimpleNamespace) -> None:
    cycle.transport.write(HEAD)
    cycle.transport.write(b"")
    assert cycle.wire.written == [HEAD]


def test_permission_to_send_a_body_is_not_held_back(cycle: SimpleNamespace) -> None:
    cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert cycle.wire.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    cycle.transport.write(HEAD)
    cycle.transport.write(b"body")
    assert cycle.wire.written[1:] == [HEAD + b"body"]


def test_close_before_a_body_writes_the_head_first(cycle: SimpleNamespace) -> None:
    cycle.transport.write(HEAD)
    assert not cycle.transport.is_closing()
    cycle.transport.close()
    assert cycle.wire.written == [HEAD]
    assert cycle.wire.closed


def test_way_of_chunks_that_is_taken_before_anything_was_said_has_the_head_once(
    cycle: SimpleNamespace,
) -> None:
    cycle.chunked_encoding = True
    tenant = Tenant(cast("TenantConnection", None), cast("RequestResponseCycle", cycle))
    cycle.transport.write(HEAD)
    way = tenant.way_of_chunks
    assert way is not None
    for chunk in (b"1\r\n\n\r\n", b"2\r\n\n\n\r\n"):
        way(chunk)
    assert b"".join(cycle.wire.written) == HEAD + b"1\r\n\n\r\n" + b"2\r\n\n\n\r\n"
