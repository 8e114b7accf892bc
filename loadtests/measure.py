"""What is measured of one request, and how: the definitions behind every figure. Pure.

As in vLLM's benchmark, all times count from the moment at which the client begins to send, opening
a connection included:

    TTFT  to the first chunk with content (vLLM's client takes the first chunk with a choice, which
          in a chat is the empty one with the role; servers send both together)
    E2E   to the last chunk with a choice; the usage after it does not count
    TPOT  (E2E - TTFT) / (n - 1), n being the completion tokens of the server's usage
    ITL   the gaps between chunks with content, for each choice; a chunk may hold several tokens

Where a server sends no usage, n is the number of chunks with content, and the outcome says so.
"""

from array import array
from dataclasses import dataclass, field
from enum import StrEnum

import orjson

from loadtests.sse import EventStream


class Failure(StrEnum):
    """Why a request did not count as completed."""

    CONNECT = "connect"  # no connection to the server
    TIMEOUT = "timeout"
    RATE_LIMITED = "http_429"
    REJECTED = "http_4xx"
    SERVER_ERROR = "http_5xx"
    RESET_EARLY = "reset_before_first_byte"
    RESET = "reset_mid_stream"
    TRUNCATED = "ended_without_done"
    MALFORMED = "malformed"  # an event or body that is not what OpenAI's API says
    ERROR_EVENT = "error_event"
    EMPTY = "empty_answer"


@dataclass(slots=True)
class Outcome:
    """One request, as the client saw it; times in seconds, `due_s` and `sent_s` monotonic."""

    kind: str
    due_s: float
    sent_s: float
    status: int | None = None
    failure: Failure | None = None
    detail: str = ""
    ttft_s: float | None = None
    e2e_s: float | None = None
    gaps_s: "array[float]" = field(default_factory=lambda: array("d"))
    prompt_tokens: int | None = None
    wanted_prompt_tokens: int | None = None
    """What the prompt was made to measure; None where it was not made for a length."""
    cached_tokens: int = 0
    output_tokens: int | None = None
    usage_missing: bool = False
    """The server said nothing of tokens; `output_tokens` counts chunks with content."""
    text_missing: bool = False
    """The server counted tokens, but none of them had a text; TTFT is then E2E."""
    chunks: int = 0
    text: str = ""
    """The answer of choice 0, where it was asked to be kept."""

    @property
    def ok(self) -> bool:
        """Whether the request completed."""
        return self.failure is None

    @property
    def lag_s(self) -> float:
        """How much later than due the request was sent."""
        return self.sent_s - self.due_s

    @property
    def tpot_s(self) -> float | None:
        """Seconds for each output token after the first; None where there is no second one."""
        if self.ttft_s is None or self.e2e_s is None or (self.output_tokens or 0) < 2:
            return None
        return (self.e2e_s - self.ttft_s) / ((self.output_tokens or 0) - 1)


def failure_of(status: int) -> Failure | None:
    """The failure that a response's status stands for."""
    if status < 400:
        return None
    if status == 429:
        return Failure.RATE_LIMITED
    return Failure.REJECTED if status < 500 else Failure.SERVER_ERROR


class Ruler:
    """Measures one request from what arrives when; every call takes the time as an argument."""

    def __init__(
        self, kind: str, due_s: float, sent_s: float, *, stream: bool, keep_text: bool = False,
        prompt_tokens: int | None = None,
    ) -> None:  # fmt: skip
        self.outcome = Outcome(kind, due_s, sent_s, wanted_prompt_tokens=prompt_tokens)
        self._stream = stream
        self._keep_text = keep_text
        self._events = EventStream()
        self._body: list[bytes] = []
        self._texts: list[str] = []
        self._last_s: dict[int, float] = {}
        self._done = False

    def head(self, status: int) -> None:
        """The response has begun."""
        self.outcome.status = status
        self.outcome.failure = failure_of(status)

    def data(self, at_s: float, data: bytes) -> None:
        """A part of the body has arrived."""
        if not self._stream or self.outcome.status != 200:
            self._body.append(data)
            return
        for event in self._events.feed(data):
            if event == b"[DONE]":
                self._done = True
            else:
                self._event(at_s, event)

    def end(self, at_s: float) -> Outcome:
        """The response has ended properly, as far as HTTP is concerned."""
        outcome = self.outcome
        if outcome.status != 200:
            outcome.failure = outcome.failure or Failure.MALFORMED
            outcome.detail = b"".join(self._body)[:500].decode(errors="replace")
        elif not self._stream:
            self._whole(at_s)
        elif outcome.failure is None:
            if not self._done:
                self._fail(Failure.TRUNCATED)
            elif self._events.cut_off:
                self._fail(Failure.MALFORMED, "bytes after the last event")
            elif not outcome.chunks:
                self._textless()
        return self._finish()

    def broken(self, failure: Failure, detail: str = "") -> Outcome:
        """The connection was not made, or was lost before the end, or the time was up."""
        if self.outcome.failure is None:
            self._fail(failure, detail)
        return self._finish()

    def _textless(self) -> None:
        """There was no content. With tokens in the usage that is an answer, if a short one: an end
        of text and other special tokens have no text. Else there was no answer."""
        outcome = self.outcome
        if outcome.output_tokens and outcome.e2e_s is not None:
            outcome.text_missing = True
            outcome.ttft_s = outcome.e2e_s
        else:
            self._fail(Failure.EMPTY)

    def _finish(self) -> Outcome:
        outcome = self.outcome
        outcome.text = "".join(self._texts)
        if outcome.ok and outcome.output_tokens is None:
            outcome.output_tokens = outcome.chunks
            outcome.usage_missing = True
        return outcome

    def _fail(self, failure: Failure, detail: str = "") -> None:
        self.outcome.failure = failure
        self.outcome.detail = detail[:500]

    def _event(self, at_s: float, event: bytes) -> None:
        try:
            chunk = orjson.loads(event)
            if "error" in chunk:
                self._fail(Failure.ERROR_EVENT, event.decode(errors="replace"))
                return
            for choice in chunk["choices"]:
                self._choice(at_s, choice)
            if chunk.get("usage"):
                self._usage(chunk["usage"])
        except (ValueError, KeyError, TypeError, AttributeError):
            if self.outcome.failure is None:
                self._fail(Failure.MALFORMED, event.decode(errors="replace"))

    def _choice(self, at_s: float, choice: dict[str, object]) -> None:
        outcome = self.outcome
        since_s = at_s - outcome.sent_s
        outcome.e2e_s = since_s
        text = content_of(choice)
        if not text:
            return
        outcome.chunks += 1
        index = int(str(choice.get("index", 0)))
        last_s = self._last_s.get(index)
        if last_s is not None:
            outcome.gaps_s.append(at_s - last_s)
        elif outcome.ttft_s is None:
            outcome.ttft_s = since_s
        self._last_s[index] = at_s
        if self._keep_text and index == 0:
            self._texts.append(text)

    def _usage(self, usage: dict[str, object]) -> None:
        outcome = self.outcome
        outcome.prompt_tokens = int(str(usage["prompt_tokens"]))
        # An embedding has none.
        outcome.output_tokens = int(str(usage.get("completion_tokens", 0)))
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            outcome.cached_tokens = int(details.get("cached_tokens") or 0)

    def _whole(self, at_s: float) -> None:
        """A body that was not streamed: its first and last token arrive together."""
        outcome = self.outcome
        try:
            answer = orjson.loads(b"".join(self._body))
            for choice in answer.get("choices", ()):
                text = content_of(choice)
                outcome.chunks += bool(text)
                if self._keep_text and not self._texts:
                    self._texts.append(text)
            if answer.get("usage"):
                self._usage(answer["usage"])
            outcome.ttft_s = outcome.e2e_s = at_s - outcome.sent_s
            if not outcome.chunks and not answer.get("data"):
                self._textless()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._fail(Failure.MALFORMED, str(error))


_CONTENT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")


def content_of(choice: dict[str, object]) -> str:
    """What a choice, or a chunk of one, holds for the user; a tool call counts as content."""
    part = choice.get("delta") or choice.get("message")
    if not isinstance(part, dict):
        return str(choice.get("text") or "")
    for name in _CONTENT_FIELDS:
        if part.get(name):
            return str(part[name])
    return str(part["tool_calls"]) if part.get("tool_calls") else ""
