"""`make bench-fairness`: one tenant floods at ten times the capacity; what does the other notice?

In simulated time: one or two fake engines with a timing model of continuous batching
(`loadtests.fake`) behind the gateway's own line and balancer. The calm tenant's requests come at a
share of half the capacity; then the other one floods. Beside the fair line a plain one, first come,
first served, of the same length; the measure is the calm tenant alone on an engine half as large,
or on one of the two. Prints a table and, last, one JSON line. It takes no clock: any machine gives
the same figures.
"""

import argparse
import functools
import heapq
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from loadtests.fake.batching import Shape
from scripts.simulated_line import CALM, FLOOD, FLOOD_AT_S, MAX_QUEUED, Arrival, Run, Seen
from serving.engine.shared_steps import CHUNK_TOKENS

FLOOD_TIMES = 10.0
BAR = 1.5
WHOLE = Shape(prefix_cache=False, long_prefill_tokens=CHUNK_TOKENS)
"""As our engines are: prompts are cut in steps that tenants share."""

HALF = replace(
    WHOLE, slots=WHOLE.slots // 2, step_per_seq_s=2 * WHOLE.step_per_seq_s,
    prefill_tps=WHOLE.prefill_tps / 2, step_tokens=WHOLE.step_tokens // 2,
    kv_tokens=WHOLE.kv_tokens // 2,
)  # fmt: skip
"""An engine of half the throughput at every share of its slots; its empty step is as short."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a tenant's requests look like."""

    prompt: int
    output: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """Two tenants' requests."""

    name: str
    calm: Kind
    flood: Kind


CHAT = Kind(prompt=512, output=128)
SCENARIOS = (
    Scenario("alike", CHAT, CHAT),
    Scenario("a flood of long answers", CHAT, Kind(prompt=512, output=1024)),
    Scenario("a flood of long prompts", CHAT, Kind(prompt=8192, output=32)),
)


def of_kind(kind: Kind, tenant: str, at_s: float, rng: random.Random) -> Arrival:
    """A request; its output is half to one and a half of the mean."""
    output = round(kind.output * rng.uniform(0.5, 1.5))
    return Arrival(at_s, tenant, kind.prompt, output, kind.output)


def poisson(
    tenant: str, kind: Kind, per_s: float, from_s: float, until_s: float
) -> Iterator[Arrival]:
    """A tenant's requests, one after the other."""
    rng = random.Random(tenant)  # noqa: S311, a benchmark that repeats itself
    at_s = from_s + rng.expovariate(per_s)
    while at_s < until_s:
        yield of_kind(kind, tenant, at_s, rng)
        at_s += rng.expovariate(per_s)


@functools.cache
def capacity_per_s(kind: Kind, seconds: float = 20.0) -> float:
    """Requests of a kind whose answers one saturated engine generates in a second."""
    rng = random.Random(0)  # noqa: S311, as above
    run = Run(WHOLE, 1, fair=True)
    run.run((of_kind(kind, FLOOD, 0.0, rng) for _ in range(MAX_QUEUED)), seconds)
    return run.generated / kind.output / seconds


@dataclass(frozen=True, slots=True)
class Found:
    """One scenario at one load."""

    scenario: str
    engines: int
    load: float
    alone: Seen
    fair: dict[str, Seen]
    plain: dict[str, Seen]

    @property
    def ratio(self) -> float:
        """The calm tenant's p99 beside the flood over that alone on half the engines."""
        return self.fair[CALM].quantile(0.99) / self.alone.quantile(0.99)


def measure(scenario: Scenario, engines: int, load: float, seconds: float) -> Found:
    """One scenario; `load` is the calm tenant's part of half the capacity, which is one of two
    engines, or an engine half as large."""
    until_s = FLOOD_AT_S + seconds
    calm_per_s = load * engines / 2 * capacity_per_s(scenario.calm)
    flood_per_s = FLOOD_TIMES * engines * capacity_per_s(scenario.flood)

    def both() -> Iterator[Arrival]:
        calm = poisson(CALM, scenario.calm, calm_per_s, 0.0, until_s)
        flood = poisson(FLOOD, scenario.flood, flood_per_s, FLOOD_AT_S, until_s)
        return heapq.merge(calm, flood, key=lambda one: one.at_s)

    alone = poisson(CALM, scenario.calm, calm_per_s, 0.0, until_s)
    return Found(
        scenario.name,
        engines,
        load,
        Run(WHOLE if engines > 1 else HALF, 1, fair=True).run(alone, until_s)[CALM],
        Run(WHOLE, engines, fair=True).run(both(), until_s),
        Run(WHOLE, engines, fair=False).run(both(), until_s),
    )


def table(found: Sequence[Found]) -> Table:
    """Both tenants, with and without the fair line."""
    shown = Table("flood", "engines", "calm at", "line", "tenant", "TTFT p50 s", "p99 s",
                  "of alone", "refused", "tokens")  # fmt: skip
    for one in found:
        rows = [("alone on half", CALM, one.alone)]
        for line, seen in (("fair", one.fair), ("plain", one.plain)):
            rows += [(line, tenant, seen[tenant]) for tenant in (CALM, FLOOD)]
        for line, tenant, seen_by in rows:
            total = len(seen_by.ttft_s) + seen_by.refused
            ratio = seen_by.quantile(0.99) / one.alone.quantile(0.99)
            shown.add_row(
                one.scenario, str(one.engines), f"{one.load:.2f}", line, tenant,
                f"{seen_by.quantile(0.5):.3f}", f"{seen_by.quantile(0.99):.3f}",
                f"{ratio:.2f}" if tenant == CALM else "",
                f"{seen_by.refused / total:.1%}" if total else "-", f"{seen_by.tokens:,}",
            )  # fmt: skip
    return shown


def json_line(found: Sequence[Found]) -> dict[str, object]:
    """What the benchmark ends with."""
    return {
        "bench": "fairness",
        "bar": BAR,
        "runs": [
            {
                "flood": one.scenario,
                "engines": one.engines,
                "load": one.load,
                "ttft_p99_s": {
                    "alone": round(one.alone.quantile(0.99), 4),
                    "fair": round(one.fair[CALM].quantile(0.99), 4),
                    "plain": _finite(one.plain[CALM].quantile(0.99)),
                },
                "ratio": round(one.ratio, 3),
            }
            for one in found
        ],
        "worst_ratio": round(max(one.ratio for one in found), 3),
        "met": all(one.ratio <= BAR for one in found),
    }


def _finite(seconds: float) -> float | None:
    return round(seconds, 4) if seconds != float("inf") else None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit code is 0 also where the bar is missed."""
    parser = argparse.ArgumentParser("bench_fairness", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of simulated time")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.8],
                        help="the calm tenant's, in capacities of one engine")  # fmt: skip
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    parsed = parser.parse_args(argv)
    found = [
        measure(scenario, engines, load, parsed.seconds)
        for scenario in SCENARIOS
        for engines in parsed.engines
        for load in parsed.loads
    ]
    Console(width=110).print(table(found))
    sys.stdout.write(json.dumps(json_line(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
