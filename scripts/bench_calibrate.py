"""`make bench-calibrate`: does the simulator say what the live platform does?

First one real engine is started a few times and driven alone: Poisson arrivals at three rates, and
bursts of all sizes. From these alone the engine model is fitted: its steps as the platform learned
them, the starts, and the way of a request outside its engine (door, HTTP, tokenising, the first
chunk), which is what its first token took beyond the simulated engine's. Then a slice of other
seeded arrivals, with bursts and gaps, is run live on up to two engines, and in the simulator with
the same policy and the same spec. The last line is one JSON object: TTFT p50 and p95, and engine
seconds, of both. `--save FILE` keeps what was measured, `--again FILE` simulates it once more.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bench_autoscale as live

from autoscaler.fleet import EngineModel
from autoscaler.rivals import Penstock
from autoscaler.simulate import Scenario, run, run_static
from autoscaler.snapshot import Spec
from autoscaler.traces import make_trace

IDLE_TIMEOUT_S = 8.0
SLOTS = 8
SCALING = {"min": 0, "max": 2, "idle_timeout_s": IDLE_TIMEOUT_S}
MANIFEST = live.MANIFEST | {
    "engine": {"max_num_seqs": SLOTS, "kv_cache_gib": 0.06},
    "scaling": SCALING,
}
ALONE = MANIFEST | {"scaling": {"min": 0, "max": 1, "idle_timeout_s": 1.0}}
"""While one engine is driven."""
WORDS = (4, 16, 48)
"""Repetitions of a sentence in a prompt: three lengths."""
OUTPUTS = (16, 64)
WAKES = 5
DRIVE_RATES = (1.0, 2.0, 4.0)
"""Requests/s, each for a third of the drive: within what one engine does."""
BURSTS = (1, 2, 3, 4, 5, 6, 7, 8)
BURST_EVERY_S = 1.0
TTFT_BAR, ENGINE_BAR = 0.20, 0.10
SAMPLE_S = 0.25
"""Between two looks at the hosts: seldom, because each look is work for the platform."""


@dataclass(frozen=True)
class Request:
    """One request to ask for, or one that was asked for, then with the time it really began."""

    at_s: float
    words: int
    output: int
    first_s: float | None = None  # its TTFT, where it was answered to its end


@dataclass(frozen=True)
class Measured:
    """What the live platform did. Of the drive come all parameters, of the slice none."""

    prompts: dict[int, int]  # tokens of each length of prompt
    starts_s: list[float]
    drive: list[Request]
    capacity: dict[str, Any]
    slice: list[Request]
    slice_starts_s: list[float]
    engine_s: float


def main() -> int:
    """Returns 1 where a bar is missed."""
    options = parse()
    if options.again:
        return report(options, read(options.again))
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    try:
        with live.platform(folder) as running:
            measured = measure(running, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.save:
        options.save.write_text(json.dumps(asdict(measured)), "utf-8")
    return report(options, measured)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slice-s", type=float, default=600.0, help="seconds of arrivals")
    parser.add_argument("--drive-s", type=float, default=60.0, help="seconds to drive one engine")
    parser.add_argument("--quick", action="store_true", help="4 minutes: a slice of 120 s")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals")
    parser.add_argument("--save", type=Path, help="keep what was measured in this file")
    parser.add_argument("--again", type=Path, help="simulate what this file keeps, nothing live")
    options = parser.parse_args()
    if options.quick:
        options.slice_s, options.drive_s = 120.0, 45.0
    return options


def read(path: Path) -> Measured:
    """What `--save` kept."""
    kept = json.loads(path.read_text("utf-8"))
    kept["prompts"] = {int(words): tokens for words, tokens in kept["prompts"].items()}
    for part in ("drive", "slice"):
        kept[part] = [Request(**one) for one in kept[part]]
    return Measured(**kept)


def arrivals(seed: int, seconds: float) -> list[Request]:
    """Half minutes of a quiet, a busy and an empty kind in turn, with Poisson arrivals in each."""
    rates = (1.0, 5.0, 0.0, 2.0)
    return _poisson(random.Random(seed), rates, 30.0, seconds)  # noqa: S311, can be repeated


def drive_arrivals(seed: int, seconds: float) -> list[Request]:
    """Other arrivals than the slice's, for one engine: Poisson at three rates."""
    chance = random.Random(f"drive {seed}")  # noqa: S311, can be repeated
    return _poisson(chance, DRIVE_RATES, seconds / len(DRIVE_RATES), seconds)


def burst_arrivals() -> list[Request]:
    """Bursts of all sizes up to an engine's slots, so that its steps are seen with each batch."""
    return [
        Request(number * BURST_EVERY_S, WORDS[n % 3], OUTPUTS[n % 2])
        for number, size in enumerate(BURSTS)
        for n in range(size)
    ]


def _poisson(
    chance: random.Random, rates: Sequence[float], each_s: float, seconds: float
) -> list[Request]:
    found, at_s = list[Request](), 0.0
    while at_s < seconds:
        rate = rates[int(at_s // each_s) % len(rates)]
        if rate == 0:
            at_s = (at_s // each_s + 1) * each_s
            continue
        at_s += chance.expovariate(rate)
        found.append(Request(at_s, chance.choice(WORDS), chance.choice(OUTPUTS)))
    return [one for one in found if one.at_s < seconds]


# --- live -------------------------------------------------------------------------------------


def measure(running: live.Platform, options: argparse.Namespace) -> Measured:
    """Drives one engine alone, then the slice on up to two."""
    running.admin("POST", "models", ALONE)
    live.wait_until(running.is_served, "served")
    prompts = {words: prompt_tokens(running, words) for words in WORDS}
    live.say(f"prompt tokens by length: {prompts}")
    for _ in range(WAKES):
        live.wait_until(running.is_asleep, "asleep")
        running.first_token_s(body_of(WORDS[0], OUTPUTS[0]))
    running.admin("PATCH", f"models/{live.MODEL}/scaling", {"min": 1})
    replay(running, burst_arrivals())
    driven = drive_arrivals(options.seed, options.drive_s)
    live.say(f"-- one engine alone: {len(driven)} requests in {options.drive_s:g} s")
    drive = replay(running, driven)
    time.sleep(2.0)  # for the last reports of the engine
    capacity = running.admin("GET", f"models/{live.MODEL}/capacity")
    running.admin("POST", "models", MANIFEST)
    live.wait_until(running.is_asleep, "asleep")
    requests = arrivals(options.seed, options.slice_s)
    live.say(f"-- {len(requests)} requests in {options.slice_s:g} s")
    with engine_seconds(running) as used:
        there = replay(running, requests)
        live.wait_until(running.is_asleep, "asleep")
    starts_s = capacity["starts_s"]
    later = running.admin("GET", f"models/{live.MODEL}/capacity")["starts_s"]
    return Measured(prompts, starts_s, drive, capacity, there, later[len(starts_s) :], used[0])


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


def replay(running: live.Platform, requests: Sequence[Request]) -> list[Request]:
    """Asks for each request at its time whatever became of the others; with what was found."""
    found: dict[int, Request] = {}
    began_s = time.monotonic()

    def ask(number: int, one: Request) -> None:
        at_s = time.monotonic() - began_s
        first_s = running.first_token_s(body_of(one.words, one.output))
        found[number] = Request(at_s, one.words, one.output, first_s)

    asked = []
    for number, one in enumerate(requests):
        time.sleep(max(0.0, began_s + one.at_s - time.monotonic()))
        asked.append(threading.Thread(target=ask, args=(number, one)))
        asked[-1].start()
    for thread in asked:
        thread.join()
    return [found[number] for number in range(len(requests))]


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


def fitted(measured: Measured) -> EngineModel:
    """The engine as the platform learned it during the drive."""
    one = measured.capacity
    return EngineModel(
        slots=SLOTS,
        prefill_tps=one["prefill_tps"],
        step_ms=1000 * one["step_s"],
        step_ms_per_seq=1000 * one["step_per_seq_s"],
        chunk_tokens=one["chunk_tokens"],
        kv_tokens=1_000_000,
    )


def ways(measured: Measured, engine: EngineModel) -> list[float]:
    """What each request of the drive took to its first token beyond the simulated engine."""
    answered = [one for one in measured.drive if one.first_s is not None]
    scenario = Scenario(trace=trace_of(answered, measured.prompts), engine=engine)
    engine_s = run_static(scenario, 1).ttft_s
    pairs = zip(sorted(answered, key=lambda one: one.at_s), engine_s, strict=True)
    return [max(0.0, (one.first_s or 0.0) - s) for one, s in pairs]


def trace_of(requests: Sequence[Request], prompts: dict[int, int]) -> Any:
    """The requests as the simulator takes them."""
    return make_trace("slice", [(r.at_s, prompts[r.words], r.output) for r in requests])


def simulated(
    requests: Sequence[Request],
    prompts: dict[int, int],
    engine: EngineModel,
    starts_s: Sequence[float],
    ways_s: Sequence[float],
) -> tuple[list[float], float]:
    """TTFT of each request, and engine seconds."""
    scenario = Scenario(
        trace=trace_of(requests, prompts), engine=engine, cold_starts_s=tuple(starts_s),
        ways_s=tuple(ways_s), idle_timeout_s=IDLE_TIMEOUT_S, places=2, initial=0,
    )  # fmt: skip
    ours = Penstock(Spec(0, 2, IDLE_TIMEOUT_S))
    outcome = run(scenario, "penstock", ours)
    # The run ends with the last request; live, the engines idle on for their time.
    last = outcome.timeline[-1][1] if outcome.timeline else 0
    return list(outcome.ttft_s), outcome.gpu_hours * 3600.0 + last * IDLE_TIMEOUT_S


# --- the report -------------------------------------------------------------------------------


def report(options: argparse.Namespace, measured: Measured) -> int:
    """Prints both sides and the JSON line."""
    engine = fitted(measured)
    ways_s = sorted(ways(measured, engine))
    live.say(f"engine model: {engine}")
    live.say(
        f"way outside the engine, of {len(ways_s)} requests: p50 {1000 * at(ways_s, 0.5):.1f} ms, "
        f"p95 {1000 * at(ways_s, 0.95):.1f} ms"
    )
    live.say(
        f"starts: {listed(measured.starts_s)} s; of the slice: {listed(measured.slice_starts_s)} s"
    )
    there = sorted(one.first_s for one in measured.slice if one.first_s is not None)
    found, found_s = simulated(measured.slice, measured.prompts, engine, measured.starts_s, ways_s)
    here, lost = sorted(found), len(measured.slice) - len(there)
    line: dict[str, Any] = {"bench": "calibrate", "requests": len(measured.slice), "lost": lost}
    missed = lost > 0
    for name, share in (("ttft_p50", 0.5), ("ttft_p95", 0.95)):
        a, b = at(there, share), at(here, share)
        line |= {f"{name}_live_s": round(a, 4), f"{name}_sim_s": round(b, 4)}
        line[f"{name}_error"] = round(b / a - 1, 3)
        missed = missed or abs(line[f"{name}_error"]) > TTFT_BAR
    line |= {"engine_live_s": round(measured.engine_s, 1), "engine_sim_s": round(found_s, 1)}
    line["engine_error"] = round(found_s / measured.engine_s - 1, 3)
    missed = missed or abs(line["engine_error"]) > ENGINE_BAR
    line |= {"way_p50_ms": round(1000 * at(ways_s, 0.5), 1)}
    line |= {"slice_s": options.slice_s, "load": round(os.getloadavg()[0], 1)}
    sys.stdout.write(json.dumps(line) + "\n")
    return int(missed)


def at(ascending: Sequence[float], share: float) -> float:
    """A quantile, nothing interpolated."""
    return ascending[int(share * (len(ascending) - 1))]


def listed(seconds: Sequence[float]) -> str:
    """Seconds with commas between them."""
    return ", ".join(f"{s:.2f}" for s in seconds)


if __name__ == "__main__":
    sys.exit(main())
