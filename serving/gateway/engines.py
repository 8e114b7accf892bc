"""The pooled HTTP client towards the engines, and what their failures are called."""

import asyncio
import hashlib
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from serving.gateway.upstream import BrokenOffError, Framed, Meter, Sink, Upstream
from serving.protocol import EndpointRoute

KEEPALIVE_S = 2.0
"""vLLM's server closes idle connections after 5 s; ours go well before, so that no request
is written into one that is just being closed and an engine is taken for dead."""

CONNECT_TIMEOUT_S = 3.0

SWEEP_S = 1.0
"""Idle connections are looked through this often."""

ERROR_BODY_BYTES = 2**20
"""As much of an engine's error is read."""

STREAM = "text/event-stream"

ACCOUNT_PATH = "/metrics"
ACCOUNT_LINES = b"vllm:"
ACCOUNT_TIMEOUT_S = 2.0


class EngineGoneError(Exception):
    """The engine could not be reached: the request never got there."""


class EngineBrokeError(Exception):
    """The engine broke off while it had the request."""


class EngineReply:
    """An engine's answer, whose body is still to be read."""

    __slots__ = ("_upstream", "content_type", "found", "status", "streams")

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.status = upstream.status
        self.content_type = upstream.content_type
        self.found = upstream.found
        self.streams = upstream.content_type.startswith(STREAM)

    async def next_bytes(self) -> bytes:
        """What has arrived since the last call, at least one byte; empty at the end.

        Raises:
            EngineBrokeError: If the answer is cut off.
        """
        try:
            return await self._upstream.read()
        except BrokenOffError as exc:
            raise EngineBrokeError(str(exc)) from exc

    async def pour(self, sink: Sink, framed: Framed | None = None) -> None:
        """Gives the rest to `sink` as it comes, without a task's wake for each part; what `framed`
        takes as it stands on the wire is not parsed.

        Raises:
            EngineBrokeError: If the answer is cut off.
            Exception: What the sink raises.
        """
        try:
            await self._upstream.pour(sink, framed)
        except BrokenOffError as exc:
            raise EngineBrokeError(str(exc)) from exc

    def pause(self) -> None:
        """Reads no more for now: the engine's server then merges what it has to say."""
        self._upstream.pause()

    def resume(self) -> None:
        """Reads on."""
        self._upstream.resume()

    def fail(self, error: Exception) -> None:
        """Gives the answer up; whoever waits for it gets this error."""
        self._upstream.fail(error)

    async def whole_body(self) -> bytes:
        """The rest of the body.

        Raises:
            EngineBrokeError: If the answer is cut off.
        """
        parts: list[bytes] = []
        while part := await self.next_bytes():
            parts.append(part)
        return b"".join(parts)

    async def error_body(self) -> bytes:
        """The body of an error, cut at ERROR_BODY_BYTES; empty if the engine broke off."""
        parts: list[bytes] = []
        size = 0
        try:
            while size < ERROR_BODY_BYTES and (part := await self.next_bytes()):
                parts.append(part)
                size += len(part)
        except EngineBrokeError:
            return b""
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine's server listens."""

    host: str
    port: int
    tls: bool

    @property
    def authority(self) -> str:
        """As it stands in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class EngineClient:
    """Sends requests to engines over pooled connections; to be used inside `async with`.

    Args:
        wanted: Name of a header, in lower case, that `EngineReply.found` is to tell.
    """

    def __init__(self, wanted: bytes = b"") -> None:
        self._wanted = wanted
        self._idle: defaultdict[Address, list[Upstream]] = defaultdict(list)
        self._meters: dict[str, Meter] = {}
        self._busy: defaultdict[str, set[Upstream]] = defaultdict(set)  # by engine_id
        self._heads: dict[tuple[str, str, str], tuple[Address, bytes]] = {}
        self._tls: ssl.SSLContext | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._sweeper = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    @asynccontextmanager
    async def post(
        self,
        route: EndpointRoute,
        path: str,
        body: bytes,
        request_id: str,
        content_type: str = "application/json",
        traceparent: str = "",
        method: str = "POST",
    ) -> AsyncIterator[EngineReply]:
        """Sends a request; leaving the block early closes the connection, and so aborts it.

        Raises:
            EngineGoneError: If no connection could be made.
            EngineBrokeError: If the engine broke off before it answered.
        """
        address, head = self._head(route, path, method)
        upstream = self._take(address) or await self._connect(address)
        upstream.wanted = self._wanted
        upstream.meter = self._meters.setdefault(route.engine_id, upstream.meter)
        busy = self._busy[route.engine_id]
        busy.add(upstream)
        try:
            rest = f"content-type: {content_type}\r\nx-request-id: {request_id}\r\n"
            if traceparent:
                rest += f"traceparent: {traceparent}\r\n"
            size = f"content-length: {len(body)}\r\n\r\n"
            try:
                await upstream.ask(head + (rest + size).encode("latin-1") + body)
            except BrokenOffError as exc:
                raise EngineBrokeError(str(exc)) from exc
            yield EngineReply(upstream)
        finally:
            busy.discard(upstream)
            if upstream.reusable and not upstream.closed:
                upstream.idle_since_s = asyncio.get_running_loop().time()
                self._idle[address].append(upstream)
            else:
                upstream.close()

    def received(self, engine_id: str) -> int:
        """How often the engine has said anything so far."""
        meter = self._meters.get(engine_id)
        return 0 if meter is None else meter.received

    def break_off(self, engine_id: str) -> int:
        """Ends the requests that an engine has, as if it had died; returns how many."""
        broken = list(self._busy.get(engine_id, ()))
        for upstream in broken:
            upstream.break_off("the engine hangs")
        return len(broken)

    async def account(self, route: EndpointRoute) -> str | None:
        """What the engine says of its own work: the same as before means that it made no step.

        None if it does not say, or not within ACCOUNT_TIMEOUT_S.
        """
        address, head = self._head(route, ACCOUNT_PATH, "GET")
        upstream: Upstream | None = None
        try:
            async with asyncio.timeout(ACCOUNT_TIMEOUT_S):
                upstream = await self._connect(address)
                await upstream.ask(head + b"\r\n")
                reply = EngineReply(upstream)
                text = await reply.whole_body()
        except (EngineGoneError, EngineBrokeError, BrokenOffError, TimeoutError):
            return None
        finally:
            if upstream is not None:
                upstream.close()
        own = [line for line in text.splitlines() if line.startswith(ACCOUNT_LINES)]
        return hashlib.blake2b(b"\n".join(own)).hexdigest() if reply.status == 200 else None

    def forget(self, known: Set[str]) -> None:
        """Drops what is kept of engines other than these."""
        for engine_id in [one for one in self._meters if one not in known]:
            if not self._busy.get(engine_id):
                del self._meters[engine_id]
                self._busy.pop(engine_id, None)

    def _take(self, address: Address) -> Upstream | None:
        idle = self._idle.get(address)
        now_s = asyncio.get_running_loop().time()
        while idle:
            upstream = idle.pop()
            if not upstream.closed and now_s - upstream.idle_since_s < KEEPALIVE_S:
                return upstream
            upstream.close()
        return None

    async def _connect(self, address: Address) -> Upstream:
        loop = asyncio.get_running_loop()
        if address.tls and self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, upstream = await loop.create_connection(
                    lambda: Upstream(loop), address.host, address.port,
                    ssl=self._tls if address.tls else None,
                )  # fmt: skip
        except (OSError, TimeoutError) as exc:
            raise EngineGoneError(f"{type(exc).__name__}: {exc}") from exc
        return upstream

    def _head(self, route: EndpointRoute, path: str, method: str = "POST") -> tuple[Address, bytes]:
        known = self._heads.get((route.url, route.token, path))
        if known is None:
            if len(self._heads) > 10_000:  # engines come and go for weeks
                self._heads.clear()
            parts = urlsplit(route.url)
            tls = parts.scheme == "https"
            address = Address(parts.hostname or "", parts.port or (443 if tls else 80), tls)
            head = (
                f"{method} {parts.path.rstrip('/')}{path} HTTP/1.1\r\nhost: {address.authority}\r\n"
            )
            if route.token:
                head += f"authorization: Bearer {route.token}\r\n"
            known = self._heads[route.url, route.token, path] = (address, head.encode("latin-1"))
        return known

    async def _sweep(self) -> None:
        """Closes what has been idle for too long."""
        while True:
            await asyncio.sleep(SWEEP_S)
            oldest_s = asyncio.get_running_loop().time() - KEEPALIVE_S
            for address, connections in list(self._idle.items()):
                kept = []
                for connection in connections:
                    if not connection.closed and connection.idle_since_s > oldest_s:
                        kept.append(connection)
                    else:
                        connection.close()
                if kept:
                    self._idle[address] = kept
                else:
                    del self._idle[address]
