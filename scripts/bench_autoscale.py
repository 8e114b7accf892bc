"""`make bench-autoscale`: bursts from zero to two engines and back, then a long steady load, live.

Real vLLM on a platform of its own. Each burst finds the model asleep. The timeline shows every
change of what is wanted and what is ready, with the autoscaler's reason. The last line is one JSON
object: `decision_ms` is the time from the request at the gateway's door to the binding of an engine
for it, of each wake; `flaps` are turns of the target's direction under the steady load; `lost` are
requests that were not answered to their end.
"""

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from live_platform import MANIFEST, MODEL, Platform, platform, say, wait_until

SAMPLE_S = 0.1
SETTLE_S = 30.0
"""Of the steady load that do not count: the bursts before it are still in the window."""
BAR_MS = 50.0


@dataclass
class Tally:
    """What became of the requests."""

    answered: int = 0
    lost: int = 0
    first_s: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Found:
    """What the platform told of its own work, as far as the bench came."""

    ready: list[tuple[float, int, int]] = field(default_factory=list)  # s, wanted, ready
    starts: list[dict[str, Any]] = field(default_factory=list)
    flaps: int | None = None
    capacity: dict[str, Any] | None = None
    error: str | None = None


def main() -> int:
    """Returns 1 where a request was lost, the target flapped, a decision was late, or the bench
    did not come to its end; the JSON line is printed in any case."""
    options = parse()
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    tally, found = Tally(), Found()
    try:
        with platform(folder) as running, timeline(running, found.ready):
            measure(running, options, tally, found)
    except (
        OSError, RuntimeError, http.client.HTTPException, subprocess.SubprocessError,
        KeyboardInterrupt,
    ) as exc:  # fmt: skip
        found.error = f"{type(exc).__name__}: {exc}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report(options, tally, found)


def measure(running: Platform, options: argparse.Namespace, tally: Tally, found: Found) -> None:
    """Bursts, then the steady load."""
    running.admin("POST", "models", MANIFEST)
    wait_until(running.is_served, "served")
    for number in range(options.bursts):
        wait_until(running.is_asleep, "asleep")
        say(f"-- burst {number + 1} of {options.bursts}, {options.width} at once")
        burst(running, tally, options.width, options.burst_s)
        found.starts = running.admin("GET", f"models/{MODEL}/starts")["items"]
    wait_until(running.is_asleep, "asleep")
    say(f"-- steady load of {options.rate:g} requests/s for {options.steady_s:g} s")
    began_at = time.time()
    steady(running, tally, options.rate, options.steady_s)
    ended_at = time.time()
    wait_until(running.is_asleep, "asleep")
    decisions = running.admin("GET", f"models/{MODEL}/decisions?limit=500")["items"]
    found.flaps = flaps_of(decisions, began_at, ended_at)
    found.starts = running.admin("GET", f"models/{MODEL}/starts")["items"]
    found.capacity = running.admin("GET", f"models/{MODEL}/capacity")
    say("\nwhat `penstock explain` tells of the last changes:")
    say(running.explain())


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bursts", type=int, default=8, help="each from zero engines")
    parser.add_argument("--width", type=int, default=24, help="requests at once in a burst")
    parser.add_argument("--burst-s", type=float, default=6.0, help="seconds that a burst goes on")
    parser.add_argument("--rate", type=float, default=3.0, help="requests/s of the steady load")
    parser.add_argument("--steady-s", type=float, default=600.0, help="seconds of steady load")
    return parser.parse_args()


@contextmanager
def timeline(running: Platform, seen: list[tuple[float, int, int]]) -> Iterator[None]:
    """Samples wanted and ready engines, prints and keeps each change."""
    stop = threading.Event()
    began_s = time.monotonic()

    def watch() -> None:
        last = None
        while not stop.wait(SAMPLE_S):
            try:
                model = running.admin("GET", f"models/{MODEL}")
            except (OSError, RuntimeError, http.client.HTTPException):
                continue
            now = (model["engines_wanted"], model["engines_ready"])
            if now != last:
                at_s = time.monotonic() - began_s
                seen.append((at_s, *now))
                say(
                    f"{at_s:8.1f} s  {'#' * now[1]}{'.' * max(0, now[0] - now[1]):<4} "
                    f"{now[1]} ready of {now[0]} wanted ({model['scaling_reason']}), "
                    f"{model['queued']} wait, {model['in_flight']} run"
                )
                last = now

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


# --- load -------------------------------------------------------------------------------------


def burst(running: Platform, tally: Tally, width: int, seconds: float) -> None:
    """So many callers at once, each asking again until the time is over."""
    ends_s = time.monotonic() + seconds

    def caller() -> None:
        while True:
            ask(running, tally)
            if time.monotonic() >= ends_s:
                return

    callers = [threading.Thread(target=caller) for _ in range(width)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()


def steady(running: Platform, tally: Tally, rate: float, seconds: float) -> None:
    """A request every 1/rate seconds, whatever became of the ones before."""
    asked: list[threading.Thread] = []
    began_s = time.monotonic()
    for number in range(int(seconds * rate)):
        time.sleep(max(0.0, began_s + number / rate - time.monotonic()))
        asked.append(threading.Thread(target=ask, args=(running, tally)))
        asked[-1].start()
        asked = [one for one in asked if one.is_alive()]
    for one in asked:
        one.join()


def ask(running: Platform, tally: Tally) -> None:
    """One streamed request, read to its end."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is Penstock? " * 8}],
        "max_tokens": 64,
        "min_tokens": 64,
    }
    first_s = running.first_token_s(body)
    with tally.lock:
        if first_s is not None:
            tally.answered += 1
            tally.first_s.append(first_s)
        else:
            tally.lost += 1


# --- the report -------------------------------------------------------------------------------


def flaps_of(decisions: Sequence[dict[str, Any]], began_at: float, ended_at: float) -> int:
    """Turns of the target's direction while the load was steady."""
    from datetime import datetime

    changes = [
        one["target"] - one["before"]
        for one in decisions
        if began_at + SETTLE_S <= datetime.fromisoformat(one["at"]).timestamp() <= ended_at
    ]
    return sum((a > 0) != (b > 0) for a, b in pairwise(changes))


def decision_ms(
    starts: Sequence[dict[str, Any]], wakes: Sequence[str], until: str = "bound"
) -> list[float]:
    """From the request at the door to the binding, of the starts that woke the model."""
    took = []
    for start in starts:
        at_s = {mark["phase"]: mark["at_s"] for mark in start["marks"]}
        if start["engine_id"] in wakes and {"demand_seen", until} <= at_s.keys():
            took.append(1000 * (at_s[until] - at_s["demand_seen"]))
    return took


def first_engines(starts: Sequence[dict[str, Any]]) -> list[str]:
    """The engines that were bound for a request that found the model asleep: of the starts that
    one request caused, the first."""
    first: dict[str, tuple[float, str]] = {}
    for start in starts:
        at_s = {mark["phase"]: mark["at_s"] for mark in start["marks"]}
        if start["waited_s"] is not None and "bound" in at_s:
            mine = at_s["bound"] - at_s.get("demand_seen", 0.0), start["engine_id"]
            first[start["start_id"]] = min(mine, first.get(start["start_id"], mine))
    return [engine_id for _, engine_id in first.values()]


def decide_ms() -> float:
    """CPU milliseconds in which the policy decides a thousand models, the median of its bench."""
    done = subprocess.run(
        [sys.executable, "-m", "autoscaler.bench"], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout)["cpu_ms_p50"])


def report(options: argparse.Namespace, tally: Tally, found: Found) -> int:
    """Prints figures and the JSON line, as much of both as there is."""
    wakes = first_engines(found.starts)
    took = decision_ms(found.starts, wakes)
    most = max((ready for _, _, ready in found.ready), default=0)
    first_s = sorted(tally.first_s)
    say(f"{tally.answered} answered, {tally.lost} lost, up to {most} engines ready at once")
    if first_s:
        say(f"TTFT p50 {statistics.median(first_s):.3f} s, max {first_s[-1]:.3f} s")
    if (one := found.capacity) is not None and one["prefill_tps"] is not None:
        step_ms, more_ms = 1000 * one["step_s"], 1000 * one["step_per_seq_s"]
        say(
            f"capacity ({one['source']}): {one['prefill_tps']:.0f} prompt tokens/s, "
            f"step {step_ms:.2f} ms + {more_ms:.3f} ms a sequence"
        )
    seen_ms = decision_ms(found.starts, wakes, until="decided")
    say(f"decision: {', '.join(f'{ms:.1f}' for ms in sorted(took))} ms (bar {BAR_MS:g})")
    say(f"of it from the door to the policy: {', '.join(f'{ms:.1f}' for ms in sorted(seen_ms))} ms")
    if found.error is not None:
        say(f"did not come to its end: {found.error}")
    line = {
        "bench": "autoscale",
        "decision_ms_p50": _rounded(took, statistics.median),
        "decision_ms_max": _rounded(took, max),
        "decided_ms_p50": _rounded(seen_ms, statistics.median),
        "lost": tally.lost,
        "flaps": found.flaps,
        "wakes": len(took),
        "answered": tally.answered,
        "engines_max": most,
        "ttft_p50_s": round(statistics.median(first_s), 3) if first_s else None,
        "steady_s": options.steady_s,
        "decide_1000_ms": decide_ms(),
        "load": round(os.getloadavg()[0], 1),
        "error": found.error,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    bad = found.error is not None or not took or max(took) > BAR_MS
    return int(bad or tally.lost > 0 or found.flaps != 0)


def _rounded(values: list[float], of: Callable[[list[float]], float]) -> float | None:
    return round(of(values), 1) if values else None


if __name__ == "__main__":
    sys.exit(main())
