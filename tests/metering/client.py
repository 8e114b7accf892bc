"""Tenants: requests at random, left at random, tried again at random; each try is written down."""

import asyncio
import random
import re
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp
import orjson

ID = re.compile(r"([0-9a-f]{32})-\d+")
MAX_TRIES = 4
PATIENCE_S = 60.0
"""How long a tenant waits that does not leave by chance."""
HEARD_WITHIN_S = 0.5
"""In which a gateway on a busy machine hears that a tenant has left, and settles the request."""


@dataclass(slots=True)
class Try:
    """One HTTP request as the tenant saw it."""

    gateway: int
    stream: bool
    prompt: int = 0  # tokens, by the answer
    told: int | None = None  # completion tokens, by the answer
    got: int = 0  # tokens that came, by their ids
    parts: int = 0  # of a stream, each of at least one token
    bytes: int = 0  # of an answer of status 200
    status: int = 0
    usage_id: str = ""
    complete: bool = False
    left: bool = False  # the tenant broke it off itself
    waited: bool = False  # it did so only after PATIENCE_S


class Tenants:
    """All callers of one run.

    Args:
        urls: The gateways.
        key: The tenant's key.
        model: What they call.
        seed: Of all their choices.
    """

    def __init__(self, urls: list[str], key: str, model: str, seed: int) -> None:
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {key}"}
        self._model = model
        self._chance = random.Random(seed)
        self.tries: list[Try] = []
        self._in_flight: Counter[int] = Counter()  # by gateway
        self._ended: deque[tuple[int, float]] = deque(maxlen=1000)  # gateway, monotonic seconds
        self.done = 0

    async def run(self, requests: int, concurrency: int) -> None:
        """Makes that many requests, each with its tries."""
        await self._call(iter(range(requests)), concurrency, 0.0)

    async def run_until(self, stop: asyncio.Event, concurrency: int, pause_s: float) -> None:
        """Makes requests until it is stopped; each caller rests between two of its own."""
        await self._call(iter(lambda: not stop.is_set(), False), concurrency, pause_s)

    def unsettled(self, gateway: int) -> int:
        """How many requests the gateway may not have settled yet, at most."""
        since_s = time.monotonic() - HEARD_WITHIN_S
        lately = sum(where == gateway and at_s > since_s for where, at_s in self._ended)
        return self._in_flight[gateway] + lately

    async def _call(self, turns: Iterator[object], concurrency: int, pause_s: float) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers) as session:

            async def caller() -> None:
                for _ in turns:
                    await self._request(session)
                    self.done += 1
                    if pause_s:
                        await asyncio.sleep(self._chance.uniform(0, 2 * pause_s))

            await asyncio.gather(*(caller() for _ in range(concurrency)))

    async def _request(self, session: aiohttp.ClientSession) -> None:
        chance = self._chance
        body: dict[str, object] = {
            "model": self._model,
            "messages": [{"role": "user", "content": "w" * chance.randint(1, 60)}],
            "max_tokens": chance.randint(1, 40),
            "ignore_eos": True,
            "return_token_ids": True,
        }
        if chance.random() < 0.6:
            body["stream"] = True
            if chance.random() < 0.5:
                body["stream_options"] = {"include_usage": True}
        leaves_s = chance.uniform(0.0, 0.15) if chance.random() < 0.2 else None
        for _ in range(MAX_TRIES):
            one = Try(chance.randrange(len(self._urls)), bool(body.get("stream")))
            self.tries.append(one)
            self._in_flight[one.gateway] += 1
            try:
                async with asyncio.timeout(leaves_s or PATIENCE_S):
                    await self._try(session, body, one)
            except TimeoutError:
                one.left, one.waited = True, leaves_s is None
            except (aiohttp.ClientError, OSError):
                pass
            finally:
                self._in_flight[one.gateway] -= 1
                self._ended.append((one.gateway, time.monotonic()))
            if one.complete or one.left or (one.got and chance.random() < 0.5):
                return
            await asyncio.sleep(chance.uniform(0.05, 0.3))

    async def _try(self, session: aiohttp.ClientSession, body: dict[str, object], one: Try) -> None:
        url = self._urls[one.gateway] + "/v1/chat/completions"
        # The same id each time: it must not merge what is billed.
        headers = {"x-request-id": "always-the-same"}
        async with session.post(url, json=body, headers=headers) as answer:
            one.status = answer.status
            if answer.status != 200:
                await answer.read()
            elif one.stream:
                async for line in answer.content:
                    self._line(line, one)
            else:
                whole = orjson.loads(await answer.read())
                one.bytes += 1
                self._note(whole, one)
                one.got = _tokens_in(whole["choices"][0])
                one.complete = True

    def _line(self, line: bytes, one: Try) -> None:
        one.bytes += len(line)
        data = line.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            one.complete = True
        elif data and (event := orjson.loads(data)) and "error" not in event:
            self._note(event, one)
            for choice in event["choices"]:
                one.got += (tokens := _tokens_in(choice))
                one.parts += tokens > 0

    def _note(self, event: dict[str, object], one: Try) -> None:
        found = ID.search(str(event["id"]))
        one.usage_id = found.group(1) if found else ""
        usage = event.get("usage")
        if isinstance(usage, dict):
            one.prompt, one.told = usage["prompt_tokens"], usage["completion_tokens"]


def _tokens_in(choice: dict[str, list[int] | None]) -> int:
    return len(choice.get("token_ids") or ())
