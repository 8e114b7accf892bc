"""What `bench_calibrate` ends with: the live slice beside the simulated one, held to the bars."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import live_platform as live
from calibrate_fit import Measured, at, fitted, simulated, ways

TTFT_BAR, ENGINE_BAR = 0.20, 0.10


def report(measured: Measured, slice_s: float) -> int:
    """Prints both sides and the JSON line; returns 1 where a bar is missed.

    Args:
        measured: What the live platform did.
        slice_s: Seconds of arrivals of its slice.
    """
    engine = fitted(measured)
    ways_s = ways(measured, engine)
    live.say(f"engine model: {engine}")
    live.say(
        f"way outside the engine, of {len(ways_s)} requests: p50 {1000 * at(ways_s, 0.5):.1f} ms, "
        f"p95 {1000 * at(ways_s, 0.95):.1f} ms"
    )
    live.say(
        f"starts: {listed(measured.starts_s)} s; beside another: "
        f"{listed(measured.further_starts_s)} s; of the slice: {listed(measured.slice_starts_s)} s"
    )
    live.say(f"stops: {listed(measured.stops_s)} s")
    there = sorted(one.first_s for one in measured.slice if one.first_s is not None)
    found, found_s = simulated(measured, engine, ways_s)
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
    line |= {"way_p50_ms": round(1000 * at(ways_s, 0.5), 1), "crowding": round(engine.crowding, 2)}
    line |= {"slice_s": slice_s, "load": round(os.getloadavg()[0], 1)}
    sys.stdout.write(json.dumps(line) + "\n")
    return int(missed)


def listed(seconds: Sequence[float]) -> str:
    """Seconds with commas between them."""
    return ", ".join(f"{s:.2f}" for s in seconds)
