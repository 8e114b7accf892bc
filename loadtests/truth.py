"""`python -m loadtests.truth`: how far are our figures from the truth, and how far are vLLM's?

A fake engine answers on a schedule that is known for each request (its ledger tells when each token
was due and when it was written); our client and the one of `vllm bench serve` measure the same, in
turn, at 1, 64 and 256 streams. An error is the measured time minus the scheduled one, so that the
engine's own lateness and the way through the kernel count as errors too; the column `engine late`
says how much of it is the engine's. Prints a table and, last, one JSON line.

On a machine that has other work, `--realtime` (for root) keeps that work from counting as error.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import orjson
import uvloop
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from loadtests.client import Ask, Client
from loadtests.summary import percentile

TTFT_MS, SPREAD = 200.0, 0.5
BODY: dict[str, object] = {
    "model": "fake", "prompt": "how true is it", "stream": True,
    "stream_options": {"include_usage": True},
}  # fmt: skip

VLLM = """
import asyncio, json, os, sys, time
import aiohttp
from vllm.benchmarks.lib.endpoint_request_func import (
    RequestFuncInput, async_request_openai_completions)

async def main(url, streams, tokens, rounds, realtime):
    if realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    connector = aiohttp.TCPConnector(
        limit=streams, limit_per_host=streams, keepalive_timeout=60, force_close=False)
    timeout = aiohttp.ClientTimeout(total=3600)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        async def stream(number):
            await asyncio.sleep(number / streams)
            outputs = []
            for turn in range(rounds):
                name = f"{number}-{turn}"
                asked = RequestFuncInput(
                    prompt="how true is it", api_url=url + "/v1/completions", prompt_len=4,
                    output_len=tokens, model="fake", request_id=name)
                output = await async_request_openai_completions(asked, session)
                assert output.success, output.error
                outputs.append({"id": name, "ttft_s": output.ttft, "gaps_s": output.itl})
            return outputs
        cpu_s = time.process_time()
        parts = await asyncio.gather(*(stream(number) for number in range(streams)))
        cpu_s = time.process_time() - cpu_s
    with open(1, "w", closefd=False) as out:  # print, unbuffered, may write a part of it
        json.dump({"cpu_s": cpu_s, "measured": [each for part in parts for each in part]}, out)

asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    streams: int
    tokens: int
    """Of a reply."""
    rounds: int
    """Requests of a stream, one after the other."""
    gap_ms: float
    realtime: bool


class Measured(BaseModel):
    """What a client says of one request."""

    id: str
    ttft_s: float
    gaps_s: list[float]


class Told(BaseModel):
    """What a client says of a run."""

    cpu_s: float
    """CPU time of the client during the run."""
    measured: list[Measured]


class Entry(BaseModel):
    """What the fake engine's ledger says of one request."""

    request_id: str
    arrived_s: float
    due_s: list[float]
    written_s: list[float]


@dataclass(frozen=True, slots=True)
class Errors:
    """How far a client was off, in milliseconds; absolute values."""

    client: str
    streams: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    gap_p50_ms: float
    gap_p99_ms: float
    tpot_p99_ms: float
    engine_late_p50_ms: float
    engine_late_p99_ms: float
    chunks_per_s: float
    cpu_us_per_chunk: float


def errors(client: str, streams: int, told: Told, ledger: Sequence[Entry], took_s: float) -> Errors:
    """Holds what a client measured against the ledger.

    Raises:
        ValueError: A request is missing, or has another number of tokens.
    """
    truth = {entry.request_id: entry for entry in ledger}
    ttft: list[float] = []
    gaps: list[float] = []
    tpot: list[float] = []
    late: list[float] = []
    for measured in told.measured:
        entry = truth.get(measured.id)
        if entry is None or len(entry.due_s) != len(measured.gaps_s) + 1:
            raise ValueError(f"request {measured.id} was not measured as it was answered")
        ttft.append(abs(measured.ttft_s - (entry.due_s[0] - entry.arrived_s)) * 1000)
        scheduled = [after - before for before, after in pairwise(entry.due_s)]
        gaps += [abs(a - b) * 1000 for a, b in zip(measured.gaps_s, scheduled, strict=True)]
        tpot.append(abs(sum(measured.gaps_s) - sum(scheduled)) / len(scheduled) * 1000)
        late += [(b - a) * 1000 for a, b in zip(entry.due_s, entry.written_s, strict=True)]
    chunks = len(late)
    for values in (ttft, gaps, tpot, late):
        values.sort()
    return Errors(
        client, streams, percentile(ttft, 50), percentile(ttft, 99), percentile(gaps, 50),
        percentile(gaps, 99), percentile(tpot, 99), percentile(late, 50), percentile(late, 99),
        chunks / took_s, told.cpu_s / chunks * 1e6,
    )  # fmt: skip


@contextmanager
def engine(ledger: Path, gap_ms: float, *, realtime: bool) -> Iterator[str]:
    """A fake engine on the schedule; gives its URL."""
    command = [
        sys.executable, "-m", "loadtests.fake_engine", "--schedule-ttft-ms", str(TTFT_MS),
        "--schedule-gap-ms", str(gap_ms), "--schedule-spread", str(SPREAD),
        "--ledger", str(ledger),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            port = json.loads(process.stdout.readline())["port"]
            if realtime:
                prefer(process.pid)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def prefer(pid: int) -> None:
    """Lets a process run before all ordinary ones; 0 is this one."""
    # Children begin as ordinary processes: importing is no measuring.
    policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    os.sched_setscheduler(pid, policy, os.sched_param(1))


async def ours(url: str, plan: Plan) -> Told:
    """Measures with our client."""
    body = orjson.dumps(BODY | {"max_tokens": plan.tokens})
    async with Client(url) as client:

        async def stream(number: int) -> list[Measured]:
            # All at once, the last would wait for the engine to read the others' requests.
            await asyncio.sleep(number / plan.streams)
            measured: list[Measured] = []
            for turn in range(plan.rounds):
                name = f"{number}-{turn}"
                outcome = await client.measure(Ask("/v1/completions", body, request_id=name))
                if outcome.ttft_s is None or not outcome.ok:
                    raise ValueError(f"request {name} failed: {outcome.failure}")
                gaps_s = list(outcome.gaps_s)
                measured.append(Measured(id=name, ttft_s=outcome.ttft_s, gaps_s=gaps_s))
            return measured

        cpu_s = time.process_time()
        parts = await asyncio.gather(*(stream(number) for number in range(plan.streams)))
        cpu_s = time.process_time() - cpu_s
    return Told(cpu_s=cpu_s, measured=[each for part in parts for each in part])


def vllms(url: str, plan: Plan) -> Told:
    """Measures with vLLM's client, in a process of its own."""
    numbers = (plan.streams, plan.tokens, plan.rounds, int(plan.realtime))
    command = [sys.executable, "-c", VLLM, url, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Told.model_validate_json(done.stdout.splitlines()[-1])


def measure(client: str, plan: Plan) -> Errors:
    """One client at one number of streams."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        with engine(path, plan.gap_ms, realtime=plan.realtime) as url:
            told = uvloop.run(ours(url, plan)) if client == "ours" else vllms(url, plan)
        ledger = [Entry.model_validate_json(line) for line in path.read_bytes().splitlines()]
    took_s = max(e.written_s[-1] for e in ledger) - min(e.arrived_s for e in ledger)
    return errors(client, plan.streams, told, ledger, took_s)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser("loadtests.truth", description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--tokens", type=int, default=60, help="tokens of a reply")
    parser.add_argument("--gap-ms", type=float, default=50.0, help="mean gap between tokens")
    parser.add_argument("--rounds", type=int, default=5, help="requests of a stream")
    parser.add_argument("--clients", nargs="+", default=["ours", "vllm"])
    parser.add_argument("--realtime", action="store_true", help="before all other processes")
    parsed = parser.parse_args()
    if parsed.realtime:
        prefer(0)
    found = [
        measure(client, Plan(streams, parsed.tokens, parsed.rounds, parsed.gap_ms, parsed.realtime))
        for streams in parsed.streams
        for client in parsed.clients
    ]
    table = Table(title="Absolute error against the schedule, ms", title_justify="left")
    for name in asdict(found[0]):
        table.add_column(name.removesuffix("_ms").replace("_", " "), justify="right")
    for each in found:
        values = asdict(each).values()
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in values))
    Console(width=150).print(table)
    line = {"bench": "truth", "errors": [asdict(each) for each in found]}
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
