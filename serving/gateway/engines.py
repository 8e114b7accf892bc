"""The pooled HTTP client towards the engines."""

import asyncio
import hashlib
import ssl
from collections import Counter, defaultdict
from collections.abc import Set
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from serving.gateway import elsewhere
from serving.gateway.replies import EngineBrokeError, EngineGoneError, EngineReply
from serving.gateway.upstream import BrokenOffError, Upstream
from serving.protocol import EndpointRoute

KEEPALIVE_S = 2.0
"""vLLM's server closes idle connections after 5 s; ours go well before, so that no request
is written into one that is just being closed and an engine is taken for dead."""

CONNECT_TIMEOUT_S = 3.0

SWEEP_S = 1.0
"""Idle connections are looked through this often."""

ACCOUNT_PATH = "/metrics"
ACCOUNT_LINES = b"vllm:"
ACCOUNT_TIMEOUT_S = 2.0


class Address(NamedTuple):
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
        elsewhere_within_s: How long a server that others run may take to begin an answer.
    """

    def __init__(self, wanted: bytes = b"", elsewhere_within_s: float = elsewhere.SILENT_S) -> None:
        self._wanted = wanted
        self._elsewhere_within_s = elsewhere_within_s
        self._idle: defaultdict[Address, list[Upstream]] = defaultdict(list)
        self._received: Counter[str] = Counter()  # by engine_id, over requests that are done
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

    def post(
        self,
        route: EndpointRoute,
        path: str,
        body: bytes,
        request_id: str,
        content_type: str = "application/json",
        traceparent: str = "",
        method: str = "POST",
    ) -> "Posting":
        """A request, which is sent when its block is entered."""
        address, head = self._head(route, path, method)
        rest = f"content-type: {content_type}\r\nx-request-id: {request_id}\r\n"
        if traceparent:
            rest += f"traceparent: {traceparent}\r\n"
        size = f"content-length: {len(body)}\r\n\r\n"
        request = head + (rest + size).encode("latin-1") + body
        within_s = self._elsewhere_within_s if route.external else None
        return Posting(self, route.engine_id, address, request, within_s)

    async def begin(self, engine_id: str, address: Address) -> Upstream:
        """A connection for one request to an engine; `end` takes it back.

        Raises:
            EngineGoneError: If no connection could be made.
        """
        upstream = self._take(address) or await self._connect(address)
        upstream.wanted = self._wanted
        self._busy[engine_id].add(upstream)
        return upstream

    def end(self, engine_id: str, address: Address, upstream: Upstream) -> None:
        """A request is over: its connection is kept if its answer was read to the end."""
        self._busy[engine_id].discard(upstream)
        self._received[engine_id] += upstream.received
        upstream.received = 0
        if upstream.reusable and not upstream.closed:
            upstream.idle_since_s = asyncio.get_running_loop().time()
            self._idle[address].append(upstream)
        else:
            upstream.close()

    def received(self, engine_id: str) -> int:
        """How often the engine has said anything so far."""
        now = sum(upstream.received for upstream in self._busy.get(engine_id, ()))
        return self._received[engine_id] + now

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
        for engine_id in [one for one in self._received if one not in known]:
            if not self._busy.get(engine_id):
                del self._received[engine_id]
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
            if route.external:
                head += elsewhere.HEADERS
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


class Posting:
    """A request to an engine, to be used in `async with`; leaving the block early closes the
    connection, and so aborts the request. A class: a generator's block costs twice as much.

    Raises:
        EngineGoneError: On entering, if no connection could be made.
        EngineBrokeError: On entering, if the engine broke off before it answered.
    """

    __slots__ = ("_address", "_client", "_engine_id", "_request", "_upstream", "_within_s")

    def __init__(
        self,
        client: EngineClient,
        engine_id: str,
        address: Address,
        request: bytes,
        within_s: float | None = None,
    ) -> None:
        self._client = client
        self._engine_id = engine_id
        self._address = address
        self._request = request
        self._within_s = within_s
        self._upstream: Upstream | None = None

    async def __aenter__(self) -> EngineReply:
        upstream = await self._client.begin(self._engine_id, self._address)
        try:
            if self._within_s is None:
                await upstream.ask(self._request)
            else:
                async with asyncio.timeout(self._within_s):
                    await upstream.ask(self._request)
        except BaseException as exc:
            self._client.end(self._engine_id, self._address, upstream)
            if isinstance(exc, BrokenOffError | TimeoutError):
                raise EngineBrokeError(str(exc) or "no answer in time") from exc
            raise
        self._upstream = upstream
        return EngineReply(upstream)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._upstream is not None:
            self._client.end(self._engine_id, self._address, self._upstream)
