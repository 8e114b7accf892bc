"""Streams through one URL, and how late each chunk comes; a process of its own.

    python -m scripts.peers.load '{"url": ..., "streams": 32, ...}'     prints one JSON line

Each stream is a connection that asks again as soon as its answer is complete, until the time is
over. Client and upstream read the same clock, so that a chunk's delay is that of the way between.
"""

import asyncio
import gc
import json
import os
import re
import select
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import urlsplit

import uvloop

STAMP = re.compile(rb'"content": ?"(\d{20})"')
STAMP_BYTES = 48
DONE = b"[DONE]"


@dataclass(frozen=True)
class Plan:
    """What is asked of the URL."""

    url: str  # base, as http://127.0.0.1:8000
    streams: int
    seconds: float
    key: str = "none"
    gap_us: int = 20_000
    chunks: int = 100
    first_ms: int = 0  # that the upstream takes for its first token
    stream: bool = True
    ramp_s: float = 1.0  # streams begin spread over this time
    warm_s: float = 0.0  # nothing counts before


@dataclass
class Findings:
    """What was seen in the time that counts."""

    chunks: int = 0
    requests: int = 0
    errors: int = 0
    bad: str = ""
    seconds: float = 0.0
    delays_us: list[int] = field(default_factory=list)
    ttfts_us: list[int] = field(default_factory=list)


class Stream(asyncio.Protocol):
    """One connection that asks and reads, again and again."""

    def __init__(self, request: bytes, plan: Plan, found: Findings, counts: list[bool]) -> None:
        self._request = request
        self._plan = plan
        self._found = found
        self._counts = counts  # one element: whether what happens now counts
        self._tail = b""
        self._sent_ns = 0
        self._begun = False  # the answer's status was read
        self._waits = True  # for the first chunk
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for the first time."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody may close a connection under us."""
        if self._counts[0]:
            self._found.errors += 1
            self._found.bad = self._found.bad or f"closed: {exc}"

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        now_ns = time.monotonic_ns()
        if not self._begun:
            if not data.startswith(b"HTTP/1.1 200"):
                self._fail(data)
                return
            self._begun = True
        if not self._plan.stream:
            self._read_whole(data)
            return
        tail = self._tail + data
        end = 0
        for found in STAMP.finditer(tail):
            self._note(now_ns, int(found[1]))
            end = found.end()
        self._waits = self._waits and not end
        self._tail = tail[max(end, len(tail) - STAMP_BYTES) :]
        if DONE in data or DONE in tail[-len(data) - len(DONE) :]:
            self._found.requests += self._counts[0]
            self._tail = b""
            # The last HTTP chunk may still be on its way; it must not stand before the answer.
            asyncio.get_running_loop().call_later(0.01, self._ask)

    def _note(self, now_ns: int, written_ns: int) -> None:
        if not self._counts[0]:
            return
        self._found.chunks += 1
        if self._waits:
            self._waits = False
            self._found.ttfts_us.append((now_ns - self._sent_ns) // 1000)
        else:
            self._found.delays_us.append((now_ns - written_ns) // 1000)

    def _read_whole(self, data: bytes) -> None:
        self._waits = False
        self._tail += data
        if self._tail.rstrip().endswith(b"}") and b'"usage"' in self._tail:
            self._tail = b""
            self._found.requests += self._counts[0]
            self._found.ttfts_us.append((time.monotonic_ns() - self._sent_ns) // 1000)
            self._ask()

    def _ask(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._begun = False
        self._waits = True
        self._sent_ns = time.monotonic_ns()
        self._transport.write(self._request)

    def _fail(self, data: bytes) -> None:
        if data.lstrip().startswith((b"0\r\n\r\n", b"\r\n")):  # the end of the answer before
            return
        self._found.errors += 1
        self._found.bad = self._found.bad or data[:300].decode("latin-1")
        if self._transport is not None:
            self._transport.close()


def request_of(plan: Plan) -> bytes:
    """The request of a real client, with a prompt of some length."""
    prompt = "Tell me what a penstock is, and how it feeds a turbine. " * 4
    asked: dict[str, object] = {
        "model": "demo", "stream": plan.stream, "max_tokens": plan.chunks, "seed": plan.gap_us,
        "temperature": 0.7, "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": prompt},
        ],
    }  # fmt: skip
    if plan.first_ms:
        asked["top_k"] = plan.first_ms  # says it to the upstream; no gateway minds it
    body = json.dumps(asked).encode()
    host = urlsplit(plan.url).netloc
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n"
        f"Content-Type: application/json\r\nUser-Agent: OpenAI/Python 2.0\r\n"
        f"Authorization: Bearer {plan.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def run(plan: Plan) -> Findings:
    """Runs the plan; what is still on its way at the end is left behind."""
    found, counts = Findings(), [plan.warm_s <= 0]
    loop = asyncio.get_running_loop()
    request = request_of(plan)
    parts = urlsplit(plan.url)
    transports: list[asyncio.BaseTransport] = []
    began_s = time.monotonic()

    async def connect(after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            transport, _ = await loop.create_connection(
                lambda: Stream(request, plan, found, counts), parts.hostname, parts.port
            )
        except OSError as exc:
            found.errors += 1
            found.bad = found.bad or str(exc)
        else:
            transports.append(transport)

    connecting = [
        asyncio.create_task(connect(plan.ramp_s * place / plan.streams))
        for place in range(plan.streams)
    ]
    await asyncio.sleep(plan.warm_s)
    counts[0] = True
    say({"counting": True})
    await asyncio.sleep(plan.seconds)
    counts[0] = False
    say({"counting": False})
    found.seconds = time.monotonic() - began_s - plan.warm_s
    await asyncio.gather(*connecting)
    for transport in transports:
        transport.close()
    await asyncio.sleep(0.05)
    return found


def say(what: object) -> None:
    """One line of JSON, at once, and all of it.

    A write to a full pipe that is interrupted, as by a stop of the process, has written a part; of
    that Python's own stdout drops the rest where it is unbuffered (PYTHONUNBUFFERED).
    """
    out, rest = sys.stdout.fileno(), memoryview(json.dumps(what).encode() + b"\n")
    while rest:
        try:
            rest = rest[os.write(out, rest) :]
        except BlockingIOError:
            select.select([], [out], [])


if __name__ == "__main__":
    gc.freeze()
    gc.disable()
    say(asdict(uvloop.run(run(Plan(**json.loads(sys.argv[1]))))))
