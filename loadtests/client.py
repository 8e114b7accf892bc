"""The measuring client: sends a prepared request to an OpenAI-compatible server, gives an Outcome.

It never raises for what a server does: that is an outcome, named in `Failure`.
"""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import orjson

from loadtests.exchange import Address, Collected, ConnectionBroken
from loadtests.measure import Failure, Outcome, Ruler
from loadtests.wire import Wires


class ServerError(Exception):
    """A server did not answer a request that a run needs before it can begin."""


def broken_off(ruler: Ruler, error: OSError | ConnectionBroken, timeout_s: float) -> Outcome:
    """The outcome of a request that an error ended before its response did."""
    if isinstance(error, TimeoutError):
        return ruler.broken(Failure.TIMEOUT, f"after {timeout_s:g} s")
    if isinstance(error, ConnectionBroken):
        early = ruler.outcome.status is None
        return ruler.broken(Failure.RESET_EARLY if early else Failure.RESET, str(error))
    return ruler.broken(Failure.CONNECT, str(error))


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, encoded beforehand so that sending it costs next to nothing."""

    path: str
    body: bytes
    kind: str = "chat"
    """Name under which its figures are collected."""
    stream: bool = True
    keep_text: bool = False
    delay_s: float = 0.0
    """Pause before it is sent, as of a reader who thinks; for later turns of a session."""
    prompt_tokens: int | None = None
    """What the prompt was made to measure, to be held against the server's usage."""
    request_id: str | None = None
    """Sent as `x-request-id`."""

    def ruler(self, due_s: float | None) -> Ruler:
        """Begins to measure, now; the request must be sent at once. Without `due_s`, due now."""
        sent_s = time.monotonic()
        return Ruler(
            self.kind,
            sent_s if due_s is None else due_s,
            sent_s,
            stream=self.stream,
            keep_text=self.keep_text,
            prompt_tokens=self.prompt_tokens,
        )


class Caller(Protocol):
    """Whoever can send a plain request."""

    async def call(self, path: str, body: object = None) -> tuple[int, bytes]:
        """GET, or POST where there is a body; gives back status and body.

        Raises:
            ServerError: The server cannot be reached.
        """


class Client:
    """Talks to one server; to be used inside `async with`, any number of requests at once.

    Args:
        base_url: Without `/v1`.
        timeout_s: Longest time that a request may take from its first byte to its last.
    """

    def __init__(self, base_url: str, api_key: str | None = None, timeout_s: float = 600.0) -> None:
        self._address = Address.of(base_url, api_key)
        self.base_url = self._address.base_url
        self.timeout_s = timeout_s
        self._wires = Wires(self._address)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._wires.close()

    async def measure(self, ask: Ask, due_s: float | None = None) -> Outcome:
        """Sends a request now; `due_s` is when it should have been sent (monotonic seconds)."""
        ruler = ask.ruler(due_s)
        try:
            async with asyncio.timeout(self.timeout_s):
                ended_s = await self._wires.exchange(
                    self._address.request(ask.path, ask.body, ask.request_id), ruler
                )
        except (OSError, ConnectionBroken) as error:
            return broken_off(ruler, error, self.timeout_s)
        return ruler.end(ended_s)

    async def call(self, path: str, body: object = None) -> tuple[int, bytes]:
        """A plain request outside of any measurement: GET, or POST where there is a body.

        Raises:
            ServerError: The server cannot be reached.
        """
        collected = Collected()
        data = None if body is None else orjson.dumps(body)
        request = self._address.request(path, data)
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._wires.exchange(request, collected)
        except (OSError, ConnectionBroken) as error:
            raise ServerError(f"{self.base_url} does not answer: {error}") from error
        return collected.status, collected.body
