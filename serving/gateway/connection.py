"""A tenant's connection: uvicorn's, with bounds in time and size, and a way to write a stream's
parts without a task's wake for each.

The bounds: a request's head comes within HEAD_TIMEOUT_S and MAX_HEAD_BYTES, its body never pauses
for longer than BODY_PAUSE_S and comes with SLOWEST_BYTES_PER_S in the mean, a body that is refused
still comes for BODY_PAUSE_S at most, and whoever does not read is noticed by `Tenant.full`.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, cast

import orjson
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from models.errors import BadRequestError, PenstockError
from serving.gateway.bodies import TenantLeftError
from serving.gateway.eager import start
from serving.gateway.http10 import Unchunked, check_head

HEAD_TIMEOUT_S = 10.0
BODY_PAUSE_S = 10.0
SLOWEST_BYTES_PER_S = 500.0
"""As Apache's mod_reqtimeout has it: a byte each nine seconds holds a connection for days."""

MAX_HEAD_BYTES = 32 * 2**10
MAX_HEADERS = 100
LINGER_S = 1.0
"""How long idle connections stay when a gateway stops."""

INTERIM = b"HTTP/1.1 100 "
"""Begins what says that a body may come; no head of an answer."""

TENANT = "penstock.tenant"
"""Where an ASGI scope holds the Tenant."""


class HeadTooLargeError(PenstockError):
    """The request's head passes what a connection takes."""

    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"


TOO_LARGE = HeadTooLargeError(
    f"the request's head is larger than {MAX_HEAD_BYTES} bytes, or has more than {MAX_HEADERS} "
    "headers"
)


class Tenant:
    """Whoever sent one request, and now waits for its answer."""

    __slots__ = ("_connection", "_cycle", "on_full", "on_left", "on_room")

    def __init__(self, connection: "TenantConnection", cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle
        self.on_left: Callable[[], None] | None = None
        self.on_full: Callable[[], None] | None = None
        self.on_room: Callable[[], None] | None = None

    @property
    def left(self) -> bool:
        """Whether the connection is gone."""
        return self._cycle.disconnected or self._connection.transport.is_closing()

    @property
    def is_sending(self) -> bool:
        """Whether a part of the request is still to come."""
        return bool(self._cycle.more_body)

    @property
    def full(self) -> bool:
        """Whether more is waiting to be written than the transport likes; `on_full` is called
        when that begins, or nobody is left to write to, `on_room` when it has gone."""
        return self._connection.flow.write_paused

    def write(self, body: bytes) -> None:
        """Writes a part of the answer's body, after its start was sent and before its end."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        if cycle.chunked_encoding:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        else:
            cycle.transport.write(body)

    @property
    def way_of_chunks(self) -> Callable[[bytes], None] | None:
        """Takes more of the answer that has started, in HTTP's chunks as they are; None where it
        goes out otherwise."""
        if not self._cycle.chunked_encoding:
            return None
        transport: object = self._cycle.transport
        if isinstance(transport, HeadFirst):
            transport.let_go()  # all that came yet was hidden, and it stands there for one write
        return self._cycle.transport.write

    def cut(self) -> None:
        """Ends the connection at once."""
        self._cycle.disconnected = True
        self._connection.transport.abort()


class HeadFirst:
    """Stands for a connection's transport until an answer's body begins: the head waits for the
    body's first part, and goes out with it in one system call.

    Args:
        cycle: uvicorn's, before its answer has started.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Keeps the head, and writes it with what comes next."""
        if self._head:
            self.let_go(data)
        elif data.startswith(INTERIM):
            self._transport.write(data)
        else:
            self._head = data

    def close(self) -> None:
        """Closes, with nothing held back."""
        self.let_go()
        self._transport.close()

    def is_closing(self) -> bool:
        """As the transport's."""
        return self._transport.is_closing()

    def let_go(self, data: bytes = b"") -> None:
        """Writes the head and these bytes, and stands for the transport no more."""
        self._cycle.transport = self._transport
        self._transport.write(self._head + data)


class TenantConnection(HttpToolsProtocol):
    """uvicorn's connection, bounded."""

    head_timeout_s = HEAD_TIMEOUT_S
    body_pause_s = BODY_PAUSE_S

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""
        self._tenants: list[Tenant] = []
        self._patience: asyncio.TimerHandle | None = None
        self._in_head = False
        self._in_body = False
        self._body_until_s = 0.0  # by the loop's clock; 0 before the body's first pause
        self._head_bytes = 0
        self._header_count = 0
        self._header_bytes = 0
        self._refused = False
        self._is_last = False
        self._is_parsing = False
        self._come: tuple[RequestResponseCycle, ASGI3Application] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connects, and shall say what they want soon."""
        super().connection_made(transport)
        self._await(self.head_timeout_s)

    @property
    def idle(self) -> bool:
        """Whether no request is on this connection, as far as we have heard."""
        busy = (
            self._in_head
            or self._in_body
            or any(not tenant._cycle.response_complete for tenant in self._tenants)
        )
        return not busy and not self.transport.is_closing()

    def make_last(self) -> None:
        """The answer that is under way, or else the next, is this connection's last."""
        self._is_last = True
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The server ends. An answer whose head promised more ends, and leaves LINGER_S for what
        is asked upon it: nobody is told of the end before."""
        self.make_last()
        if self.idle:
            super().shutdown()

    def on_response_complete(self) -> None:
        """An answer has ended."""
        super().on_response_complete()
        if self._is_last and self.idle:
            self.loop.call_later(LINGER_S, self._leave)

    def _leave(self) -> None:
        if self.idle:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Somebody leaves; whoever works for them is told."""
        self._stop_waiting()
        super().connection_lost(exc)
        tenants, self._tenants = self._tenants, []
        for tenant in tenants:
            tenant._cycle.disconnected = True
            if tenant.on_full is not None:
                tenant.on_full()  # at once: nothing can be written from here on
            if tenant.on_left is not None:
                tenant.on_left()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        if self._refused:
            return
        if not self._in_body and not self._in_head:
            self._head_bytes = 0
        self._head_bytes += len(data)
        self._is_parsing = True
        super().data_received(data)
        self._is_parsing = False
        come, self._come = self._come, None
        if come is not None and not self._refused:
            self._begin(*come)
        # Here and not where a head or a body begins: most requests come as a whole.
        if self._refused:
            return
        if self._in_body:
            self._await_body(len(data))
        elif self._in_head:
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(TOO_LARGE)
            elif self._patience is None:
                self._await(self.head_timeout_s)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Serves a request: where it has just come, when all that came with it has been read, so
        that it mostly finds its body."""
        if self._is_parsing:
            self._come = (cycle, app)
        else:
            super()._start_asgi_task(cycle, app)

    def _begin(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        task = start(self.loop, cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def pause_writing(self) -> None:
        """Enough is waiting to be written."""
        super().pause_writing()
        for tenant in self._tenants:
            if tenant.on_full is not None:
                tenant.on_full()

    def resume_writing(self) -> None:
        """There is room again for what is to be written."""
        super().resume_writing()
        for tenant in self._tenants:
            if tenant.on_room is not None:
                tenant.on_room()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        self._header_count = 0
        self._header_bytes = 0
        self._stop_waiting()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those past MAX_HEADERS are not kept, for the request is refused."""
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        if self._header_count > MAX_HEADERS:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here: who sent it is known to the app as `scope[TENANT]`."""
        self._in_head = False
        if self._head_is_too_large:
            raise TOO_LARGE
        is_old = self.parser.get_http_version() == "1.0"
        check_head([name for name, _ in self.headers], is_old=is_old)
        self._in_body = True
        super().on_headers_complete()
        if self.parser.get_method() == b"POST":  # to others an answer may have no body
            self.cycle.transport = HeadFirst(self.cycle)  # type: ignore[assignment]
        if is_old:
            self.cycle.send = Unchunked(self.cycle)  # type: ignore[assignment]
        if self._is_last:
            self.cycle.keep_alive = False
        tenant = Tenant(self, self.cycle)
        self._tenants = [one for one in self._tenants if not one._cycle.response_complete]
        self._tenants.append(tenant)
        cast("dict[str, Any]", self.scope)[TENANT] = tenant

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._in_body = False
        self._body_until_s = 0.0
        self._head_bytes = 0
        self._stop_waiting()
        super().on_message_complete()
        # uvicorn stops reading where much of a body came at once, and goes on when the app asks for
        # more: nobody asks after the end, and so nobody would hear that the tenant leaves.
        if self.flow.read_paused and not self.pipeline:
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is no HTTP."""
        bad = BadRequestError("this is no valid HTTP request")
        self._refuse(TOO_LARGE if self._head_is_too_large else bad)

    @property
    def _head_is_too_large(self) -> bool:
        return (
            self._header_count > MAX_HEADERS or self._header_bytes + len(self.url) > MAX_HEAD_BYTES
        )

    def _refuse(self, error: PenstockError) -> None:
        """Answers what never became a request, and closes; within an answer it only closes."""
        self._refused = True
        self._stop_waiting()
        if any(not tenant._cycle.response_complete for tenant in self._tenants):
            self.transport.abort()
            return
        body = orjson.dumps(error.body())
        head = (
            f"HTTP/1.1 {error.status} Refused\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _await_body(self, arrived: int) -> None:
        if self.cycle.response_complete and self._patience is not None:
            return  # it was refused: what still comes is thrown away, for as long as it waits now
        now_s = self.loop.time()
        until_s = self._body_until_s or now_s + self.body_pause_s
        self._body_until_s = until_s + arrived / SLOWEST_BYTES_PER_S
        self._await(min(self.body_pause_s, self._body_until_s - now_s))

    def _await(self, patience_s: float) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(patience_s, self._lose_patience)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        """Somebody dawdles over a request: cut, unless it is us who have not read on."""
        self._patience = None
        if self._in_body and self.flow.read_paused:
            self._await(self.body_pause_s)
        elif not self.transport.is_closing():
            self.transport.abort()


class WhileConnected:
    """A block that is cancelled, and raises TenantLeftError, when the tenant's connection goes."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._left = False
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._tenant.on_left = self._leave
        if self._tenant.left:
            self._leave()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tenant.on_left = None
        if self._left and self._task is not None:
            # As asyncio.timeout does: only our own cancellation becomes an error of ours.
            still_wanted = self._task.uncancel() <= 0
            if still_wanted and isinstance(error, asyncio.CancelledError):
                raise TenantLeftError from error

    def _leave(self) -> None:
        self._left = True
        self._tenant.on_left = None
        if self._task is not None:
            self._task.cancel()
