"""`make bench-calibrate`: does the simulator say what the live platform does?

First one real engine is driven over batches and prompts of different sizes, and the engine model is
fitted: its steps as the platform learned them, and what the way through gateway and engine adds to
the first token of a lone request. Then a slice of seeded arrivals, with bursts and gaps, is run
live and in the simulator, with the same policy, the same spec and the starts that were measured.
The last line is one JSON object: TTFT p50 and p95, and engine seconds, of both.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_autoscale as live

from autoscaler.fleet import EngineModel
from autoscaler.rivals import Penstock
from autoscaler.simulate import Scenario, run
from autoscaler.snapshot import Spec
from autoscaler.traces import make_trace

IDLE_TIMEOUT_S = 8.0
SLOTS = 8
MANIFEST = live.MANIFEST | {
    "engine": {"max_num_seqs": SLOTS, "kv_cache_gib": 0.06},
    "scaling": {"min": 0, "max": 2, "idle_timeout_s": IDLE_TIMEOUT_S},
}
WORDS = (4, 16, 48)
"""Repetitions of a sentence in a prompt: three lengths."""
OUTPUTS = (16, 64)
TTFT_BAR, ENGINE_BAR = 0.20, 0.10
SAMPLE_S = 0.05


@dataclass(frozen=True)
class Request:
    """One request of the slice."""

    at_s: float
    words: int
    output: int


def main() -> int:
    """Returns 1 where a bar is missed."""
    options = parse()
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    requests = arrivals(options.seed, options.slice_s)
    try:
        with live.platform(folder) as running:
            running.admin("POST", "models", MANIFEST)
            live.wait_until(running.is_served, "served")
            prompts = {words: prompt_tokens(running, words) for words in WORDS}
            live.say(f"prompt tokens by length: {prompts}")
            lone = drive(running, options.drive_s)
            live.wait_until(running.is_asleep, "asleep")
            time.sleep(2.0)  # for the last reports of the engine
            live.say(f"-- {len(requests)} requests in {options.slice_s:g} s")
            with engine_seconds(running) as used:
                ttft_s = replay(running, requests)
                live.wait_until(running.is_asleep, "asleep")
            capacity = running.admin("GET", f"models/{live.MODEL}/capacity")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report(options, requests, prompts, lone, ttft_s, used[0], capacity)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slice-s", type=float, default=600.0, help="seconds of arrivals")
    parser.add_argument("--drive-s", type=float, default=40.0, help="seconds to drive one engine")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals")
    return parser.parse_args()


def arrivals(seed: int, seconds: float) -> list[Request]:
    """Minutes of a quiet, a busy and an empty kind in turn, with Poisson arrivals in each."""
    chance = random.Random(seed)  # noqa: S311, arrivals that can be repeated
    rates, found, at_s = (1.0, 5.0, 0.0, 2.0), list[Request](), 0.0
    while at_s < seconds:
        rate = rates[int(at_s // 30.0) % len(rates)]
        if rate == 0:
            at_s = (at_s // 30.0 + 1) * 30.0
            continue
        at_s += chance.expovariate(rate)
        found.append(Request(at_s, chance.choice(WORDS), chance.choice(OUTPUTS)))
    return [one for one in found if one.at_s < seconds]


# --- live -------------------------------------------------------------------------------------


def body_of(words: int, output: int) -> dict[str, Any]:
    """A request of exactly so many tokens out; no two prompts share more than a first word."""
    salt = random.getrandbits(48)
    return {
        "model": live.MODEL,
        "messages": [{"role": "user", "content": f"{salt:x} " + "What is Penstock? " * words}],
        "max_tokens": output,
        "min_tokens": output,
        "temperature": 0,
    }


def prompt_tokens(running: live.Platform, words: int) -> int:
    """Tokens of a prompt of this length, as the engine counts them."""
    told = running.tenant("chat/completions", body_of(words, 1))
    return int(told["usage"]["prompt_tokens"])


def drive(running: live.Platform, seconds: float) -> list[tuple[int, float]]:
    """Has one engine run batches of all sizes; returns words and TTFT of lone requests."""
    lone = []
    for words in WORDS:
        for _ in range(5):
            first_s = running.first_token_s(body_of(words, 8))
            if first_s is not None:
                lone.append((words, first_s))
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        for width in (1, 2, 3, 4, 5, 6):  # within one engine's slots, so that no other one starts
            callers = [
                threading.Thread(
                    target=running.first_token_s, args=(body_of(WORDS[n % 3], OUTPUTS[n % 2]),)
                )
                for n in range(width)
            ]
            for one in callers:
                one.start()
            for one in callers:
                one.join()
    return lone


def replay(running: live.Platform, requests: Sequence[Request]) -> list[float | None]:
    """TTFT of each request, asked for at its time whatever became of the others."""
    found: list[float | None] = [None] * len(requests)
    began_s = time.monotonic()

    def ask(number: int, one: Request) -> None:
        found[number] = running.first_token_s(body_of(one.words, one.output))

    asked = []
    for number, one in enumerate(requests):
        time.sleep(max(0.0, began_s + one.at_s - time.monotonic()))
        asked.append(threading.Thread(target=ask, args=(number, one)))
        asked[-1].start()
    for thread in asked:
        thread.join()
    return found


@contextmanager
def engine_seconds(running: live.Platform) -> Iterator[list[float]]:
    """Integrates how many hosts have an engine, from its binding to its last process's end."""
    used, stop = [0.0], threading.Event()

    def watch() -> None:
        last_s = time.monotonic()
        while not stop.wait(SAMPLE_S):
            hosts = running.admin("GET", "hosts")["items"]
            now_s = time.monotonic()
            used[0] += (now_s - last_s) * sum(host["engine_id"] is not None for host in hosts)
            last_s = now_s

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield used
    finally:
        stop.set()
        watcher.join()


# --- simulated --------------------------------------------------------------------------------


def simulated(
    requests: Sequence[Request], prompts: dict[int, int], engine: EngineModel, starts_s: list[float]
) -> tuple[list[float], float]:
    """TTFT of each request without the constant way, and engine seconds."""
    trace = make_trace("slice", [(r.at_s, prompts[r.words], r.output) for r in requests])
    scenario = Scenario(
        trace=trace, engine=engine, cold_starts_s=tuple(starts_s), idle_timeout_s=IDLE_TIMEOUT_S,
        places=2, initial=0,
    )  # fmt: skip
    ours = Penstock(Spec(0, 2, IDLE_TIMEOUT_S))
    outcome = run(scenario, "penstock", ours)
    # The run ends with the last request; live, the engines idle on for their time.
    last = outcome.timeline[-1][1] if outcome.timeline else 0
    return list(outcome.ttft_s), outcome.gpu_hours * 3600.0 + last * IDLE_TIMEOUT_S


# --- the report -------------------------------------------------------------------------------


def report(
    options: argparse.Namespace,
    requests: Sequence[Request],
    prompts: dict[int, int],
    lone: Sequence[tuple[int, float]],
    ttft_s: Sequence[float | None],
    used_s: float,
    capacity: dict[str, Any],
) -> int:
    """Prints both sides and the JSON line."""
    engine = EngineModel(
        slots=SLOTS,
        prefill_tps=capacity["prefill_tps"],
        step_ms=1000 * capacity["step_s"],
        step_ms_per_seq=1000 * capacity["step_per_seq_s"],
        chunk_tokens=capacity["chunk_tokens"],
        kv_tokens=1_000_000,
    )
    way_s = statistics.median(s - prompts[words] / engine.prefill_tps for words, s in lone[3:])
    live.say(f"engine model: {engine}")
    live.say(f"way of a lone request beside its prefill: {1000 * way_s:.1f} ms")
    starts = capacity["starts_s"]
    live.say(f"starts: {', '.join(f'{s:.2f}' for s in starts)} s")
    there = sorted(s for s in ttft_s if s is not None)
    found, found_s = simulated(requests, prompts, engine, starts)
    here = sorted(s + max(0.0, way_s) for s in found)
    line: dict[str, Any] = {"bench": "calibrate", "requests": len(requests), "lost": 0}
    line["lost"] = len(requests) - len(there)
    missed = line["lost"] > 0
    for name, share in (("ttft_p50", 0.5), ("ttft_p95", 0.95)):
        a, b = there[int(share * (len(there) - 1))], here[int(share * (len(here) - 1))]
        line |= {f"{name}_live_s": round(a, 4), f"{name}_sim_s": round(b, 4)}
        line[f"{name}_error"] = round(b / a - 1, 3)
        missed = missed or abs(line[f"{name}_error"]) > TTFT_BAR
    line |= {"engine_live_s": round(used_s, 1), "engine_sim_s": round(found_s, 1)}
    line["engine_error"] = round(found_s / used_s - 1, 3)
    missed = missed or abs(line["engine_error"]) > ENGINE_BAR
    line |= {"slice_s": options.slice_s, "load": round(os.getloadavg()[0], 1)}
    sys.stdout.write(json.dumps(line) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
