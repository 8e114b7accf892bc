"""`make bench-gateway`: what our gateway costs beside nginx, a Rust router and LiteLLM.

All of them stand before one upstream at the same time and are measured in turn, round after round,
so that whatever else the machine does meets them alike. CPU time is the gateway's own (all threads
and children, by the scheduler's count), a chunk's delay the time between its writing at the
upstream and its reading at the client, by one clock. Ours runs with keys, limits, queue and
metering on. With two or more cores the gateway under test has one to itself.

The last line is one of JSON; progress goes to stderr.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil

from scripts.peers.gateways import Park, Peer, describe, upstream
from scripts.peers.load import Findings, Plan

NAMES = ("nginx", "rust_router", "penstock", "litellm")
FEATURES = ("penstock_off", "penstock_on")
"""Ours without limits and metering, and with all that can be on."""

DIRECT = "direct"
"""The upstream itself, without a gateway."""

HALF_LOAD = 0.5
PACE_PER_S = 50.0
LITELLM_STREAMS = 32
"""LiteLLM is saturated by 32 streams already; 256 only make its queue longer."""


@dataclass
class Series:
    """What was measured of one gateway at one load."""

    us_per_chunk: list[float] = field(default_factory=list)
    us_per_request: list[float] = field(default_factory=list)
    delays_us: list[int] = field(default_factory=list)
    ttfts_us: list[int] = field(default_factory=list)
    errors: int = 0


def quantile(values: Iterable[float], share: float) -> float | None:
    """The value below which `share` of all lie; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def milliseconds(values: Iterable[float], share: float) -> float | None:
    """A quantile of microseconds in milliseconds."""
    found = quantile(values, share)
    return None if found is None else round(found / 1000, 3)


async def drive(plan: Plan, peer: Peer | None, cpus: Sequence[int]) -> tuple[Findings, float]:
    """Runs a plan in a process of its own; the gateway's CPU seconds while it counted."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.peers.load", json.dumps(asdict(plan)),
        stdout=asyncio.subprocess.PIPE, limit=2**28,
    )  # fmt: skip
    assert process.stdout is not None
    if cpus:
        psutil.Process(process.pid).cpu_affinity(list(cpus))
    marks: list[float] = []
    last = b"{}"
    try:
        while line := await process.stdout.readline():
            if b'"counting"' in line:
                marks.append(peer.cpu_s() if peer else 0.0)
            last = line
    except BaseException:
        process.terminate()
        raise
    finally:
        await process.wait()
    return Findings(**json.loads(last)), marks[1] - marks[0]


class Bench:
    """The rounds, and what they found."""

    def __init__(self, args: argparse.Namespace, peers: dict[str, Peer], port: int) -> None:
        self._args = args
        self._peers = peers
        self._direct = f"http://127.0.0.1:{port}"
        cores = sorted(os.sched_getaffinity(0))
        self._others = cores[1:]
        self.series: defaultdict[tuple[str, int], Series] = defaultdict(Series)
        self.whole: defaultdict[str, Series] = defaultdict(Series)

    def plan(self, name: str, streams: int, **changes: object) -> Plan:
        """What is asked of one gateway."""
        peer = self._peers.get(name)
        plan = Plan(
            url=peer.url if peer else self._direct, key=peer.key if peer else "none",
            streams=streams, seconds=self._args.seconds, warm_s=1.5,
            gap_us=round(1e6 / PACE_PER_S),
        )  # fmt: skip
        return replace(plan, **changes)  # type: ignore[arg-type]

    async def chunks(self, name: str, streams: int) -> None:
        """One gateway under streams."""
        peer = self._peers.get(name)
        found, cpu_s = await drive(self.plan(name, streams), peer, self._others)
        series = self.series[name, streams]
        series.errors += found.errors
        series.delays_us += found.delays_us
        series.ttfts_us += found.ttfts_us
        if found.chunks:
            series.us_per_chunk.append(cpu_s / found.chunks * 1e6)
        say(f"{name:12} {streams:4} streams: {found.chunks:7} chunks, "
            f"{cpu_s / max(1, found.chunks) * 1e6:7.1f} us each, delay p50 "
            f"{milliseconds(found.delays_us, 0.5)} p99 {milliseconds(found.delays_us, 0.99)} ms, "
            f"errors {found.errors} {found.bad[:200]}")  # fmt: skip

    async def requests(self, name: str) -> None:
        """One gateway under short requests that are answered as a whole."""
        plan = self.plan(name, 8, stream=False, chunks=1)
        found, cpu_s = await drive(plan, self._peers.get(name), self._others)
        if found.requests:
            self.whole[name].us_per_request.append(cpu_s / found.requests * 1e6)
        say(f"{name:12} {found.requests:7} whole answers, "
            f"{cpu_s / max(1, found.requests) * 1e6:7.1f} us each {found.bad[:200]}")  # fmt: skip

    async def half_load(self) -> dict[str, float | None]:
        """The time to the first token that our gateway adds while half of its core is taken."""
        costs = [c for (name, _), s in self.series.items() if name == "penstock"
                 for c in s.us_per_chunk]  # fmt: skip
        streams = max(8, round(HALF_LOAD * 1e6 / statistics.median(costs) / PACE_PER_S))
        times: dict[str, list[int]] = {"penstock": [], DIRECT: []}
        for _ in range(self._args.rounds):
            for name, seen in times.items():
                # Short answers that begin all the time, among the long ones that make the load.
                load = self.plan(name, streams, seconds=self._args.seconds + 3.0, chunks=1000)
                probe = self.plan(name, 4, chunks=3, seconds=self._args.seconds)
                background = asyncio.create_task(drive(load, self._peers.get(name), self._others))
                await asyncio.sleep(2.5)
                found, _ = await drive(probe, self._peers.get(name), self._others)
                seen += found.ttfts_us
                await background
        added = {
            share: difference(quantile(times["penstock"], at), quantile(times[DIRECT], at))
            for share, at in (("p50", 0.5), ("p99", 0.99))
        }
        say(f"half load: {streams} streams, TTFT added {added} ms")
        return added

    async def thousand(self) -> dict[str, float]:
        """1,000 streams at once on one core."""
        peer = self._peers["penstock"]
        plan = self.plan("penstock", 1000, gap_us=self._args.thousand_gap_ms * 1000, ramp_s=3.0,
                         warm_s=4.0)  # fmt: skip
        found, cpu_s = await drive(plan, peer, self._others)
        rss_mib = round(peer.peak_rss_mib(), 1)
        say(f"1000 streams: {found.chunks} chunks, errors {found.errors} {found.bad[:200]}, "
            f"{cpu_s / found.seconds:.2f} cores, delay p99 "
            f"{milliseconds(found.delays_us, 0.99)} ms, RSS {rss_mib} MiB")  # fmt: skip
        return {"errors": found.errors, "rss_mib": rss_mib, "chunks": found.chunks,
                "cores": round(cpu_s / found.seconds, 2)}  # fmt: skip


def difference(ours: float | None, theirs: float | None) -> float | None:
    """Microseconds apart, in milliseconds."""
    return None if ours is None or theirs is None else round((ours - theirs) / 1000, 3)


def say(text: str) -> None:
    """Progress, for people."""
    sys.stderr.write(text + "\n")


def median(values: Sequence[float]) -> float | None:
    """The median of rounds."""
    return round(statistics.median(values), 1) if values else None


async def measure(args: argparse.Namespace) -> dict[str, object]:
    """All rounds, and their summary."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
        port, process = await stack.enter_async_context(upstream(folder))
        park = Park(folder, args.peers, port, stack)
        peers: dict[str, Peer] = {}
        for name in FEATURES if args.features else args.only or NAMES:
            try:
                peer = await park.start(name)
            except TimeoutError:
                say(f"{name} does not start: {describe(folder, name)}")
                continue
            if peer is None:
                say(f"{name} is not installed: left out")
                continue
            peers[name] = peer
            say(f"{name} serves at {peer.url}")
        bench = Bench(args, peers, port)
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            process.cpu_affinity(cores[1:])
            for peer in peers.values():
                peer.pin(cores[0])
        for _ in range(args.rounds):
            for streams in args.streams:
                for name in (DIRECT, *peers):
                    if name != "litellm" or streams <= LITELLM_STREAMS:
                        await bench.chunks(name, streams)
            for name in peers:
                await bench.requests(name)
        result = summary(bench, peers, args.streams)
        if args.features:
            result["features"] = features(bench, args.streams)
        if "penstock" in peers:
            result["ttft_added_ms"] = await bench.half_load()
            result["streams_1000"] = await bench.thousand()
        return result


def summary(bench: Bench, peers: dict[str, Peer], loads: Sequence[int]) -> dict[str, object]:
    """The JSON line, as far as the rounds tell."""

    def costs(name: str) -> list[float]:
        return [c for n in loads for c in bench.series[name, n].us_per_chunk]

    return {
        "bench": "gateway",
        "us_per_chunk": {name: median(costs(name)) for name in peers},
        "us_per_chunk_at": {
            str(n): {name: median(bench.series[name, n].us_per_chunk) for name in peers}
            for n in loads
        },
        "us_per_request": {name: median(bench.whole[name].us_per_request) for name in peers},
        "chunk_delay_ms": {
            str(n): {
                name: {
                    "p50": milliseconds(bench.series[name, n].delays_us, 0.5),
                    "p99": milliseconds(bench.series[name, n].delays_us, 0.99),
                }
                for name in (DIRECT, *peers)
            }
            for n in loads
        },
        "errors": {name: sum(bench.series[name, n].errors for n in loads) for name in peers},
    }


def features(bench: Bench, loads: Sequence[int]) -> dict[str, object]:
    """What all that can be on costs, beside all off; the medians of rounds that took turns."""
    off, on = ([bench.series[name, n] for n in loads] for name in FEATURES)

    def middle(of: Sequence[Series], field_name: str) -> float | None:
        return median([value for series in of for value in getattr(series, field_name)])

    def delay_ms(of: Sequence[Series], field_name: str) -> float | None:
        return milliseconds([v for series in of for v in getattr(series, field_name)], 0.5)

    without, with_all = middle(off, "us_per_chunk"), middle(on, "us_per_chunk")
    return {
        "us_per_chunk": {"off": without, "on": with_all},
        "more_cpu_a_chunk": round(with_all / without - 1, 3) if without and with_all else None,
        "chunk_delay_p50_ms": {"off": delay_ms(off, "delays_us"), "on": delay_ms(on, "delays_us")},
        "ttft_p50_ms": {"off": delay_ms(off, "ttfts_us"), "on": delay_ms(on, "ttfts_us")},
        "bars": {"more_cpu_a_chunk": 0.15, "more_p50_ms": 0.3},
    }


def main() -> int:
    """Installs what is missing, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=6.0, help="of each measurement")
    add("--streams", type=int, nargs="+", default=[32, 256])
    add("--only", nargs="+", choices=NAMES, help="leave the others out")
    add("--features", action="store_true",
        help="ours alone: limits, metering, prices and budgets on against off")  # fmt: skip
    add("--quick", action="store_true", help="one short round: whether it runs, not what it says")
    add("--peers", type=Path, help="folder of the peers' environments; installed there if missing")
    add("--thousand-gap-ms", type=int, default=200, help="between chunks of the 1,000 streams")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds = 1, 2.0
    if args.features:  # no peers needed
        args.peers = args.peers or Path()
        sys.stdout.write(json.dumps(asyncio.run(measure(args))) + "\n")
        return 0
    install = [Path(__file__).parent / "peers/setup.sh", *([args.peers] if args.peers else [])]
    args.peers = Path(
        subprocess.run(install, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )
    sys.stdout.write(json.dumps(asyncio.run(measure(args))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
