"""`penstock chat`: talks to a model through the endpoint, as a tenant does."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Annotated, Self, TypedDict

import httpx
import typer

from models.errors import UnauthenticatedError, UpstreamError
from serving.cli import client, output
from serving.settings import ClientSettings

DEFAULT_MODEL = "guide"
READ_TIMEOUT_S = 300.0
"""A model that has to be fetched and started first takes its time to the first token."""


class Turn(TypedDict):
    """One message of a conversation."""

    role: str
    content: str


def chat(
    model: Annotated[str, typer.Argument(help="Model to talk to.")] = DEFAULT_MODEL,
    prompt: Annotated[
        str | None, typer.Argument(help="One question; without it, a conversation.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 answers the same always.")] = 0.0,
) -> None:
    """Talk to a model; answers go to stdout, times and tokens/s to stderr."""
    settings = ClientSettings.load()
    if settings.api_key is None:
        raise UnauthenticatedError(
            "no API key",
            hint="export PENSTOCK_API_KEY=...; `penstock up` printed it at its first start",
        )
    options = {"temperature": temperature} | ({"max_tokens": max_tokens} if max_tokens else {})
    with Conversation(
        settings.url, settings.api_key.get_secret_value(), model, options
    ) as conversation:
        for question in [prompt] if prompt is not None else _questions():
            conversation.ask(question)


class Conversation:
    """Questions and answers so far, with one model.

    Args:
        options: Further fields of each request, as `temperature`.
    """

    def __init__(self, url: str, api_key: str, model: str, options: Mapping[str, float]) -> None:
        self._url = url
        self._model = model
        self._options = options
        self._turns: list[Turn] = []
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/v1",
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=5.0),
            trust_env=client.needs_proxy(url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def ask(self, question: str) -> None:
        """Prints the answer as it comes, then how fast it came.

        Raises:
            PenstockError: What the endpoint refused, or that it broke off.
        """
        self._turns.append({"role": "user", "content": question})
        began_s = time.monotonic()
        first_s: float | None = None
        answer: list[str] = []
        tokens = 0
        try:
            for text, counted in self._stream():
                if text and first_s is None:
                    first_s = time.monotonic()
                answer.append(text)
                tokens = counted or tokens
                sys.stdout.write(text)
                sys.stdout.flush()
        except httpx.HTTPError as exc:
            raise client.unreachable(self._url, exc) from exc
        finally:
            if answer:
                sys.stdout.write("\n")
        self._turns.append({"role": "assistant", "content": "".join(answer)})
        ended_s = time.monotonic()
        first_s = first_s or ended_s
        # The first token's time is the prompt's and the queue's; the speed is of the others.
        speed = (tokens - 1) / (ended_s - first_s) if tokens > 1 and ended_s > first_s else 0.0
        output.stderr().print(
            f"[TTFT {first_s - began_s:.2f} s, {tokens} tokens, {speed:.0f} tokens/s]", style="dim"
        )

    def _stream(self) -> Iterator[tuple[str, int]]:
        """Pieces of the answer, each with the completion tokens so far where they are told."""
        body = {
            "model": self._model,
            "messages": self._turns,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._options,
        }
        with self._client.stream("POST", "/chat/completions", json=body) as response:
            if not response.is_success:
                response.read()
                raise client.to_error(response)
            for line in response.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                yield _read_chunk(data)


def _read_chunk(data: str) -> tuple[str, int]:
    try:
        chunk = json.loads(data)
        if error := chunk.get("error"):
            raise UpstreamError(str(error["message"]), hint="`penstock get events` tells more")
        text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        return text, int((chunk.get("usage") or {}).get("completion_tokens", 0))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise UpstreamError("the stream holds something that is no chunk") from exc


def _questions() -> Iterator[str]:
    """Lines of the terminal or of a pipe, until its end."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line:
            yield line
