"""`make bench-affinity`: how often prompts hit the engines' prefix caches, by who balances.

Replays Mooncake's synthetic trace in simulated time over four fake engines, each with a prefix
cache of its own and a timing model of continuous batching (`loadtests.fake`), through the gateway's
own line and balancer; beside it round robin, the fewest outstanding tokens, and one engine that is
as large as the four together, whose cache is shared by all. Lengths are the trace's, divided by
`--scale`; the engines' speeds and KV caches are those of an H200-like replica, divided alike.
Prints a table and, last, one JSON line. It takes no clock: any machine gives the same figures.
With `--live`, two real engines instead (`affinity_live`).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtests.recordings import Row, load
from scripts.affinity_simulated import ENGINES, POLICIES, Found, Replay

TRACE = Path(__file__).parents[1] / "loadtests" / "traces" / "mooncake_synthetic.jsonl.gz"
HIT_BAR, BALANCE_BAR = 0.9, 1.25
LIVE_REQUESTS = 600


def table(found: Sequence[Found]) -> Table:
    """The figures, a policy a row."""
    shown = Table("policy", "hit rate", "of shared", "max/mean requests", "tokens", "computed",
                  "TTFT p50 s", "p99 s")  # fmt: skip
    shared = found[0].hit_rate
    for one in found:
        shown.add_row(
            one.policy, f"{one.hit_rate:.3f}", f"{one.hit_rate / shared:.3f}",
            f"{one.requests_balance:.3f}", f"{one.tokens_balance:.3f}",
            f"{one.computed_balance:.3f}", f"{one.ttft_p50_s:.2f}", f"{one.ttft_p99_s:.2f}",
        )  # fmt: skip
    return shown


def json_line(found: Sequence[Found], requests: int, scale: int) -> dict[str, object]:
    """What the benchmark ends with."""
    shared, ours, *others = found
    return {
        "bench": "affinity",
        "requests": requests,
        "scale": scale,
        "engines": ENGINES,
        "hit_rate": {one.policy: round(one.hit_rate, 4) for one in found},
        "of_shared": round(ours.hit_rate / shared.hit_rate, 4),
        "balance": {one.policy: round(one.tokens_balance, 4) for one in (ours, *others)},
        "balance_requests": round(ours.requests_balance, 4),
        "balance_computed": round(ours.computed_balance, 4),
        "ttft_p99_s": {one.policy: round(one.ttft_p99_s, 3) for one in found},
        "met": ours.hit_rate >= HIT_BAR * shared.hit_rate and ours.tokens_balance <= BALANCE_BAR,
    }


def live(rows: Sequence[Row], requests: int) -> int:
    """The same over two real engines, smaller."""
    from scripts import affinity_live  # a simulation needs no platform

    found = affinity_live.run(rows, requests)
    shown = Table("way", "hit rate", "of shared", "max/mean tokens", "computed")
    for way in found:
        figures = (way.hit_rate, way.of_shared, way.balance, way.computed_balance)
        shown.add_row(way.name, *(f"{figure:.3f}" for figure in figures))
    Console().print(shown)
    sys.stdout.write(affinity_live.json_line(found) + "\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit code is 0 also where a bar is missed."""
    parser = argparse.ArgumentParser("bench_affinity", description=__doc__)
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--scale", type=int, default=16, help="lengths are divided by this")
    parser.add_argument("--requests", type=int, help="only so many, from the beginning")
    parser.add_argument("--live", action="store_true", help="over two real engines: some minutes")
    parsed = parser.parse_args(argv)
    if parsed.live:
        return live(load(parsed.trace).rows, parsed.requests or LIVE_REQUESTS)
    rows = load(parsed.trace).rows[: parsed.requests]
    found = [Replay(policy, rows, parsed.scale).run() for policy in POLICIES]
    Console().print(table(found))
    sys.stdout.write(json.dumps(json_line(found, len(rows), parsed.scale)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
