"""An engine that does what a test tells it: HTTP by hand, so that it can die at any byte."""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from serving.protocol import EndpointRoute

TOKENS = ("A", " penstock", " feeds", " a", " turbine", ".")


@dataclass(frozen=True)
class Seen:
    """A request that reached the engine."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Behaviour = Callable[["FakeEngine", Seen, asyncio.StreamWriter], Awaitable[None]]


class FakeEngine:
    """Answers in the way of vLLM; `script` holds what the next requests shall meet."""

    def __init__(self, engine_id: str = "engine-1", slots: int = 4) -> None:
        self.engine_id = engine_id
        self.slots = slots
        self.token = f"token-of-{engine_id}"
        self.script: deque[Behaviour] = deque()
        self.default: Behaviour = answers
        self.seen: list[Seen] = []
        self.running = 0
        self.most_running = 0
        self.aborted = 0
        self.connections = 0
        self.go_on = asyncio.Event()  # lets behaviours that wait go on
        self.tls: ssl.SSLContext | None = None  # to be set before it starts
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def route(self) -> EndpointRoute:
        return EndpointRoute(
            engine_id=self.engine_id,
            url=f"http://127.0.0.1:{self.port}",
            token=self.token,
            revision=1,
            slots=self.slots,
        )

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Dies: nobody listens any more, and every connection is reset."""
        if self._server is not None:
            server, self._server = self._server, None
            # A connection that was accepted in this turn of the loop has its transport made in the
            # next: with the server closed by then asyncio would leave it open, which warns.
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            await asyncio.sleep(0)
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # it came in while we died
            writer.transport.abort()
            return
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Cancelled before its first step, it would leave the connection open.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (seen := await _read_request(reader)) is not None:
                self.seen.append(seen)
                await self._behave(seen, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _behave(
        self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        behaviour = self.script.popleft() if self.script else self.default
        if seen.headers.get("authorization") != f"Bearer {self.token}":
            behaviour = refuses(401, "Unauthorized")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        work = asyncio.create_task(_run(behaviour, self, seen, writer))
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.aborted += 1
                raise ConnectionResetError
        finally:
            self.running -= 1
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        await work


async def _run(
    behaviour: Behaviour, engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter
) -> None:
    await behaviour(engine, seen, writer)
    if not writer.transport.is_closing():
        await writer.drain()


async def _read_request(reader: asyncio.StreamReader) -> Seen | None:
    head = await reader.readuntil(b"\r\n\r\n")
    request_line, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, value in (x.split(":", 1) for x in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(request_line.split(" ")[1], headers, json.loads(body))


def event(text: str) -> bytes:
    """One streamed chunk as vLLM writes it."""
    chunk = {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "demo",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    }  # fmt: skip
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


STREAM = (*(event(token) for token in TOKENS), b"data: [DONE]\n\n")

USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"demo",'
    b'"choices":[],"usage":{"prompt_tokens":3,"total_tokens":9,"completion_tokens":6,'
    b'"prompt_tokens_details":{"cached_tokens":2}}}\n\n'
)
"""What vLLM streams before the end to those who ask for it."""


SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def whole(status: int, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


async def answers(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Streams if asked to, else answers as a whole."""
    if seen.body.get("stream"):
        writer.write(SSE_HEAD)
        for part in stream_for(seen):
            writer.write(chunked(part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        return
    chat = "chat" in seen.path
    text = "".join(TOKENS)
    choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    writer.write(
        whole(200, {
            "id": "x-1", "object": "chat.completion" if chat else "text_completion", "created": 1,
            "model": "demo", "choices": [{"index": 0, "finish_reason": "stop", **choice}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9},
        })
    )  # fmt: skip


def stream_for(seen: Seen) -> tuple[bytes, ...]:
    """The parts of a stream, with the usage if it was asked for."""
    options = seen.body.get("stream_options") or {}
    return (*STREAM[:-1], USAGE, STREAM[-1]) if options.get("include_usage") else STREAM


async def waits(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Answers as soon as the test says so."""
    await engine.go_on.wait()
    await answers(engine, seen, writer)


async def stalls_mid_stream(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Streams two events, and the rest as soon as the test says so."""
    writer.write(SSE_HEAD + chunked(STREAM[0]) + chunked(STREAM[1]))
    await writer.drain()
    await engine.go_on.wait()
    writer.write(b"".join(chunked(part) for part in stream_for(seen)[2:]) + b"0\r\n\r\n")


async def dies_at_once(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Breaks the connection without a byte."""
    writer.transport.abort()


async def dies_after_headers(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Breaks the connection before the first byte of the body."""
    writer.write(SSE_HEAD)
    await writer.drain()
    writer.close()


async def dies_mid_event(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Breaks the connection in the middle of the third event."""
    writer.write(SSE_HEAD + chunked(STREAM[0]) + chunked(STREAM[1]))
    await writer.drain()
    await asyncio.sleep(0.01)
    writer.write(chunked(STREAM[2][:20]))
    await writer.drain()
    writer.close()


async def dies_mid_body(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Promises more of a whole answer than it gives."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
    await writer.drain()
    writer.close()


def refuses(status: int, message: str, param: str | None = None, head: str = "") -> Behaviour:
    """Answers with an error in vLLM's shape, whose code is a number; `head` holds more headers."""

    async def refuse(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
        error = {"message": message, "type": "BadRequestError", "param": param, "code": status}
        answer = whole(status, {"error": error})
        writer.write(answer.replace(b"\r\n", f"\r\n{head}".encode(), 1))

    return refuse


def fails_in_stream(after: int, code: int = 500) -> Behaviour:
    """Streams `after` events, then reports a failed generation as vLLM does."""

    async def fail(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
        error = {"message": "EngineCore died", "type": "X", "param": None, "code": code}
        writer.write(SSE_HEAD)
        for part in STREAM[:after]:
            writer.write(chunked(part))
        writer.write(chunked(b"data: " + json.dumps({"error": error}).encode() + b"\n\n"))
        writer.write(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    return fail
