"""`make bench-calibrate`: does the simulator say what the live platform does?

One real engine is started a few times, alone and beside another one that works, and engines are
driven: one alone with Poisson arrivals at three rates, then two, which share the machine's cores.
From these alone the engine model is fitted (`calibrate_fit`). Then a slice of other seeded
arrivals, with bursts and gaps, is run live on up to two engines, and in the simulator with the same
policy and the same spec. Half of the drives come after the slice, so that what else the machine
does weighs on both alike. The last line is one JSON object: TTFT p50 and p95, and engine seconds,
of both. `--save FILE` keeps what was measured, `--again FILE` simulates it once more.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import live_platform as live
from calibrate_fit import IDLE_TIMEOUT_S, SLOTS, Drive, Measured, paces
from calibrate_load import (
    OUTPUTS,
    WORDS,
    Request,
    arrivals,
    burst_arrivals,
    drive_arrivals,
)
from calibrate_report import report

MANIFEST = live.MANIFEST | {
    "engine": {"max_num_seqs": SLOTS, "kv_cache_gib": 0.06},
    "scaling": {"min": 0, "max": 2, "idle_timeout_s": IDLE_TIMEOUT_S},
}
ALONE = MANIFEST | {"scaling": {"min": 0, "max": 1, "idle_timeout_s": 1.0}}
"""While one engine is driven."""
WAKES = 5
FURTHER_STARTS = 4
RATES = {1: (1.0, 2.0, 4.0), 2: (2.0, 5.0, 8.0)}
"""Requests/s to so many engines, each for a third of a drive: within what these do."""
BESIDE_RATE, BESIDE_S = 3.0, 60.0
"""Requests/s to the engine beside which others start, and for how long at most."""
SAMPLE_S = 0.25
"""Between two looks at the hosts: seldom, because each look is work for the platform."""


def main() -> int:
    """Returns 1 where a bar is missed."""
    options = parse()
    if options.again:
        return report(read(options.again), options.slice_s)
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    try:
        with live.platform(folder) as running:
            measured = measure(running, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.save:
        options.save.write_text(json.dumps(asdict(measured)), "utf-8")
    return report(measured, options.slice_s)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slice-s", type=float, default=600.0, help="seconds of arrivals")
    parser.add_argument(
        "--drive-s", type=float, default=60.0, help="seconds to drive one engine, and then two"
    )
    parser.add_argument("--quick", action="store_true", help="5 minutes: a slice of 120 s")
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
    kept["slice"] = [Request(**one) for one in kept["slice"]]
    kept["drives"] = [
        Drive(one["engines"], [Request(**request) for request in one["requests"]])
        for one in kept["drives"]
    ]
    return Measured(**kept)


def measure(running: live.Platform, options: argparse.Namespace) -> Measured:
    """Drives one engine, then two, then runs the slice on up to two, and drives once more."""
    running.admin("POST", "models", ALONE)
    live.wait_until(running.is_served, "served")
    prompts = {words: prompt_tokens(running, words) for words in WORDS}
    live.say(f"prompt tokens by length: {prompts}")
    stops_s = [stop_s(running)]
    for _ in range(WAKES):
        running.first_token_s(body_of(WORDS[0], OUTPUTS[0]))
        stops_s.append(stop_s(running))
    starts_s = starts(running)[1:]  # the first one after a deploy reads what later ones find read
    scale(running, 1)
    replay(running, burst_arrivals())
    drives = [drive(running, 1, options, "before")]
    time.sleep(2.0)  # for the last reports of the engine
    capacity = running.admin("GET", f"models/{live.MODEL}/capacity")
    further_starts_s = start_beside(running)
    drives.append(drive(running, 2, options, "before"))

    running.admin("POST", "models", MANIFEST)
    live.wait_until(running.is_asleep, "asleep")
    before = len(starts(running))
    requests = arrivals(options.seed, options.slice_s)
    live.say(f"-- {len(requests)} requests in {options.slice_s:g} s")
    with engine_seconds(running) as used:
        there = replay(running, requests)
        live.wait_until(running.is_asleep, "asleep")
    slice_starts_s = starts(running)[before:]

    drives += [drive(running, engines, options, "after") for engines in (1, 2)]
    return Measured(
        prompts, starts_s, further_starts_s, stops_s, drives, capacity, there, slice_starts_s,
        used[0],
    )  # fmt: skip


def drive(running: live.Platform, engines: int, options: argparse.Namespace, when: str) -> Drive:
    """Drives so many engines, for half of the time."""
    scale(running, engines)
    seconds = options.drive_s / 2
    requests = drive_arrivals(f"{options.seed} {engines} {when}", seconds, RATES[engines])
    live.say(f"-- engines {engines}: {len(requests)} requests in {seconds:g} s")
    found = Drive(engines, replay(running, requests))
    if pace_s := list(paces(found)):
        live.say(f"   a token each {1000 * statistics.median(pace_s):.2f} ms (median)")
    return found


def scale(running: live.Platform, engines: int) -> None:
    """Waits until there are exactly so many engines, and all of them are ready."""

    def is_so() -> bool:
        model = running.admin("GET", f"models/{live.MODEL}")
        hosts = running.admin("GET", "hosts")["items"]
        held = sum(host["engine_id"] is not None for host in hosts)
        return bool(model["engines_ready"] == engines == held)

    running.admin("PATCH", f"models/{live.MODEL}/scaling", {"min": engines, "max": engines})
    live.wait_until(is_so, f"{engines} engines")


def starts(running: live.Platform) -> list[float]:
    """Seconds from host to route of each start so far."""
    return list(running.admin("GET", f"models/{live.MODEL}/capacity")["starts_s"])


def start_beside(running: live.Platform) -> list[float]:
    """What starts take beside an engine that works."""
    before, over = len(starts(running)), threading.Event()
    requests = drive_arrivals("beside", BESIDE_S, (BESIDE_RATE,))
    load = threading.Thread(target=replay, args=(running, requests, over))
    load.start()
    try:
        for _ in range(FURTHER_STARTS):
            scale(running, 2)
            scale(running, 1)
    finally:
        over.set()
        load.join()
    return starts(running)[before:]


def stop_s(running: live.Platform) -> float:
    """Waits for the model to sleep: seconds from that decision until no host has its engine."""
    live.wait_until(running.is_asleep, "asleep", SAMPLE_S / 5)
    now_at = time.time()
    last = running.admin("GET", f"models/{live.MODEL}/decisions?limit=1")["items"][-1]
    return max(0.0, now_at - datetime.fromisoformat(last["at"]).timestamp())


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


def replay(
    running: live.Platform, requests: Sequence[Request], over: threading.Event | None = None
) -> list[Request]:
    """Asks for each request at its time whatever became of the others; with what was found.

    Args:
        over: Once it is set, the rest is left out.
    """
    found: dict[int, Request] = {}
    began_s = time.monotonic()

    def ask(number: int, one: Request) -> None:
        at_s = time.monotonic() - began_s
        first_s, last_s = running.tokens_s(body_of(one.words, one.output))
        found[number] = Request(at_s, one.words, one.output, first_s, last_s)

    asked = []
    for number, one in enumerate(requests):
        time.sleep(max(0.0, began_s + one.at_s - time.monotonic()))
        if over is not None and over.is_set():
            break
        asked.append(threading.Thread(target=ask, args=(number, one)))
        asked[-1].start()
    for thread in asked:
        thread.join()
    return [found[number] for number in range(len(asked))]


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


if __name__ == "__main__":
    sys.exit(main())
