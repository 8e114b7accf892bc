"""Measures the CPU time that the policy takes for many models: `python -m autoscaler.bench`."""

import json
import random
import statistics
import sys
import time

from autoscaler.capacity import Capacity
from autoscaler.policy import decide, first_memory
from autoscaler.snapshot import Snapshot, Spec

MODELS = 1000
ROUNDS = 60


def main() -> None:
    """Decides MODELS models in each of ROUNDS ticks, and prints one JSON line."""
    source = random.Random(1)  # noqa: S311, not for secrets
    one = Capacity(128, 35_000.0, 0.008, 0.000_12)
    spec = Spec(min=0, max=64, idle_timeout_s=300.0)
    memories = [first_memory(0.0, spec) for _ in range(MODELS)]
    took_ms = []
    for tick in range(ROUNDS):
        seen = [_snapshot(source, tick * 0.25, one) for _ in range(MODELS)]
        began_s = time.process_time()
        memories = [decide(s, m, spec)[1] for s, m in zip(seen, memories, strict=True)]
        took_ms.append((time.process_time() - began_s) * 1000.0)
    found = {
        "bench": "decide",
        "models": MODELS,
        "cpu_ms_p50": round(statistics.median(took_ms), 2),
        "cpu_ms_max": round(max(took_ms), 2),
    }
    sys.stdout.write(json.dumps(found) + "\n")


def _snapshot(source: random.Random, at_s: float, one: Capacity) -> Snapshot:
    arrivals = source.randint(0, 50)
    return Snapshot(
        at_s=at_s,
        ready=3,
        starting=1,
        queued=source.randint(0, 9),
        in_flight=source.randint(0, 300),
        arrivals=arrivals,
        arrived_tokens=arrivals * source.randint(1, 2000),
        queued_tokens=source.randint(0, 9000),
        prefill_tokens=source.randint(0, 20_000),
        oldest_wait_s=0.1,
        finished=3,
        finished_tokens=300,
        cold_start_s=2.0,
        capacity=one,
    )


if __name__ == "__main__":
    main()
