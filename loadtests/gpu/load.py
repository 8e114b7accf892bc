"""Loads a server and says what came of it: whole runs by the load tests, single streams by hand."""

import asyncio
import json
import math
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import httpx

from loadtests.gpu.plan import Plan

WORDS = "w1 w2 w3 w4"
NAMES = {
    "tokens_s": "output_throughput", "ttft_p50_ms": "median_ttft_ms",
    "ttft_p99_ms": "p99_ttft_ms", "tpot_p50_ms": "median_tpot_ms", "tpot_p99_ms": "p99_tpot_ms",
}  # fmt: skip
"""Figures by the names that the load tests print them under."""


class LoadError(Exception):
    """A server did not answer as it should."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A run at one concurrency."""

    concurrency: int
    tokens_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float
    tpot_p99_ms: float
    completed: int
    complaints: int
    """Reasons why the run is not to be trusted; its log names them."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server and how to call it."""

    url: str
    model: str
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """For requests by hand."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


def bench_command(
    plan: Plan, target: Target, concurrency: int, requests: int, lengths: tuple[int, int]
) -> list[str]:
    """The load tests' flags for a closed loop of exact lengths."""
    return [
        target.url, "--model", target.model, "--concurrency", str(concurrency),
        "--requests", str(requests), "--input-tokens", str(lengths[0]),
        "--output-tokens", str(lengths[1]), "--ignore-eos", "--output", "json",
        *(("--api-key", target.key) if target.key else ()),
    ]  # fmt: skip


def run(plan: Plan, target: Target, concurrency: int, requests: int) -> Figures:
    """One run.

    Raises:
        LoadError: If it was not possible, or a request failed.
    """
    lengths = (plan.input_tokens, plan.output_tokens)
    flags = bench_command(plan, target, concurrency, requests, lengths)
    done = subprocess.run(
        [plan.python, "-P", "-m", "loadtests.bench", *flags], stdout=subprocess.PIPE, check=False
    )
    if not done.stdout:
        raise LoadError(f"the load at {concurrency} at once ended with {done.returncode}")
    told = json.loads(done.stdout)
    if told["failed"] or not told["completed"]:
        raise LoadError(f"{told['failed']} of {told['num_prompts']} requests failed")
    return figures_of(told, concurrency)


def figures_of(told: Mapping[str, Any], concurrency: int) -> Figures:
    """The figures of a run by what the load tests print.

    Raises:
        LoadError: If one of them is no number.
    """
    numbers = {}
    for name, theirs in NAMES.items():
        value = told.get(theirs)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise LoadError(f"{theirs} at {concurrency} at once is no number: {value}")
        numbers[name] = float(value)
    return Figures(
        concurrency=concurrency,
        completed=told["completed"],
        complaints=len(told["penstock"]["complaints"]),
        **numbers,
    )


def middle(runs: list[Figures]) -> dict[str, float]:
    """The median of each figure over runs of the same kind."""
    each = [asdict(one) for one in runs]
    return {name: median(one[name] for one in each) for name in each[0]}


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer."""

    first_s: float
    """From the call to the first word."""
    whole_s: float
    words: int


async def ask(target: Target, tokens: int, timeout_s: float = 300.0) -> Answer:
    """Streams one chat.

    Raises:
        LoadError: If it fails, or says nothing.
    """
    body = {
        "model": target.model, "stream": True, "max_tokens": tokens, "temperature": 0,
        "ignore_eos": True, "messages": [{"role": "user", "content": WORDS}],
    }  # fmt: skip
    began_s = time.monotonic()
    first_s, words = None, 0
    try:
        async with (
            httpx.AsyncClient(timeout=timeout_s, headers=target.headers, trust_env=False) as http,
            http.stream("POST", f"{target.url}/v1/chat/completions", json=body) as answer,
        ):
            if answer.status_code != 200:
                said = (await answer.aread()).decode(errors="replace")[:300]
                raise LoadError(f"{target.url} answered {answer.status_code}: {said}")
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    raise LoadError(str(chunk["error"])[:300])
                if any((choice.get("delta") or {}).get("content") for choice in chunk["choices"]):
                    words += 1
                    first_s = first_s or time.monotonic() - began_s
    except (httpx.HTTPError, ValueError, LookupError) as error:
        raise LoadError(f"{target.url} broke off: {error!r}") from error
    if first_s is None:
        raise LoadError(f"{target.url} said nothing")
    return Answer(first_s, time.monotonic() - began_s, words)


def first_token(target: Target, tokens: int = 4) -> Answer:
    """One streamed chat.

    Raises:
        LoadError: If it fails.
    """
    return asyncio.run(ask(target, tokens))


def burst(target: Target, number: int, tokens: int) -> list[Answer]:
    """So many chats at the same moment.

    Raises:
        LoadError: If one of them fails.
    """

    async def all_of_them() -> list[Answer]:
        return list(await asyncio.gather(*(ask(target, tokens) for _ in range(number))))

    return asyncio.run(all_of_them())
