"""An upstream that streams chunks like vLLM's at a fixed pace, for next to nothing each.

    python -m scripts.peers.upstream [PORT]     prints {"port": ...}

`max_tokens` is the number of chunks, `seed` the microseconds between two of them, `top_k` the
milliseconds before the first. Each chunk bears the time at which it was written (CLOCK_MONOTONIC,
ns), so that whoever reads it knows its delay.
One process of asyncio protocols on uvloop: 22 us a chunk on a busy machine, so that 256 streams of
50 chunks/s take a quarter of a core.
"""

import asyncio
import gc
import json
import sys
import time
from functools import partial
from typing import cast

import uvloop

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
BEFORE = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"demo","choices":[{"index":0,"delta":{'
)
AFTER = b'},"logprobs":null,"finish_reason":null}]}\n\n'
USAGE = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"demo","choices":[],"usage":{"prompt_tokens":16,'
    b'"total_tokens":%d,"completion_tokens":%d}}\n\n'
)
DONE = b"data: [DONE]\n\n"

JsonObject = dict[str, object]


def chunked(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def content() -> bytes:
    """One event, stamped now."""
    return chunked(b'%b"content":"%020d"%b' % (BEFORE, time.monotonic_ns(), AFTER))


class Connection(asyncio.Protocol):
    """One connection; requests come one after another."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody connects."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Somebody leaves."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        self._buffer += data
        head, gap, rest = self._buffer.partition(b"\r\n\r\n")
        if not gap:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._answer(head.split(b" ", 2), rest[:length])

    def _answer(self, request: list[bytes], body: bytes) -> None:
        if request[0] != b"POST":
            models = {"object": "list", "data": [{"id": "demo", "object": "model"}]}
            self._whole(models if b"models" in request[1] else {"status": "ok"})
            return
        asked: JsonObject = json.loads(body)
        chunks = asked.get("max_tokens") or asked.get("max_completion_tokens") or 1
        assert isinstance(chunks, int)
        if not asked.get("stream"):
            self._whole(_answer_of(chunks))
            return
        options = asked.get("stream_options")
        gap_us, first_ms = asked.get("seed"), asked.get("top_k")
        begin = partial(
            self._begin,
            chunks,
            gap_us / 1e6 if isinstance(gap_us, int) else 0.02,
            isinstance(options, dict) and bool(options.get("include_usage")),
        )
        if isinstance(first_ms, int):
            self._timer = asyncio.get_running_loop().call_later(first_ms / 1e3, begin)
        else:
            begin()

    def _begin(self, chunks: int, gap_s: float, usage: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        role = chunked(BEFORE + b'"role":"assistant","content":""' + AFTER)
        self._transport.write(HEAD + role + content())
        end = DONE if not usage else USAGE % (16 + chunks, chunks) + DONE
        self._go_on(chunks - 1, time.monotonic(), gap_s, end)

    def _go_on(self, left: int, last_s: float, gap_s: float, end: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not left:
            transport.write(chunked(end) + b"0\r\n\r\n")
            return
        loop = asyncio.get_running_loop()
        due_s = last_s + gap_s

        def write() -> None:
            if not transport.is_closing():
                transport.write(content())
                self._go_on(left - 1, due_s, gap_s, end)

        self._timer = loop.call_later(max(0.0, due_s - time.monotonic()), write)

    def _whole(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        if self._transport is not None:
            self._transport.write(head % len(body) + body)


def _answer_of(tokens: int) -> JsonObject:
    message = {"role": "assistant", "content": "word " * tokens}
    usage = {"prompt_tokens": 16, "completion_tokens": tokens, "total_tokens": 16 + tokens}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "demo",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage,
    }  # fmt: skip


async def main() -> None:
    """Serves until it is killed."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", port, backlog=4096)
    gc.collect()
    gc.freeze()
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
