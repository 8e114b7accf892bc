"""`make bench-gateway`: what our gateway costs beside nginx, a Rust router and LiteLLM.

All of them stand before one upstream at the same time and are measured in turn, round after round,
so that whatever else the machine does meets them alike. CPU time is the gateway's own (all threads
and children, by the scheduler's count), a chunk's delay the time between its writing at the
upstream and its reading at the client, by one clock. Ours runs with keys, limits, queue and
metering on. With two or more cores the gateway under test has one to itself.

The last line is one of JSON, whatever went wrong: it has all its keys, null where nothing was
measured, and says under `problems` why. Progress goes to stderr.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scripts.peers.gateways import Park, describe, upstream
from scripts.peers.parts import PartedReport
from scripts.peers.processes import Peer, PeerError
from scripts.peers.rounds import (
    DIRECT,
    LITELLM_STREAMS,
    OURS,
    Bench,
    Extent,
    RoundError,
    Series,
    milliseconds,
    say,
)

NAMES = ("nginx", "rust_router", OURS, "litellm")
FEATURES = ("penstock_off", "penstock_on")
"""Ours without limits and metering, and with all that can be on."""

ENGINE_FIRST_MS = 10
"""What a quick engine takes for its first token, while the journal's commit goes on."""

PARTS = ("chunks", "requests", "half_load", "thousand")
INTERRUPTED = 130

BARS = {
    "over_rust_router": 1.5, "litellm_over_ours": 15, "chunk_delay_p99_ms_over_rust_router": 2,
    "ttft_added_ms": {"p50": 1, "p99": 5}, "streams_1000": {"errors": 0, "rss_mib": 400},
}  # fmt: skip


@dataclass
class Report(PartedReport):
    """What is known so far, and what went wrong."""

    expected = (RoundError, PeerError, OSError, psutil.Error)

    names: tuple[str, ...]
    streams: tuple[int, ...]
    features: bool = False
    bench: Bench | None = None
    ttft_added_ms: dict[int, Mapping[str, Mapping[str, float | None]]] = field(default_factory=dict)
    """By what the upstream takes for its first token, and gateway."""
    streams_1000: Mapping[str, float | None] = field(
        default_factory=lambda: {"errors": None, "rss_mib": None}
    )

    def line(self) -> dict[str, object]:
        """The JSON line."""
        return {
            "bench": "gateway",
            "us_per_chunk": {name: median(self._costs(name)) for name in self.names},
            "us_per_chunk_at": {
                str(n): {name: median(self._at(name, n).us_per_chunk) for name in self.names}
                for n in self.streams
            },
            "over_rust_router": {
                str(n): self._over(OURS, "rust_router", n) for n in self.streams
            },
            "litellm_over_ours": self._over("litellm", OURS, min(self.streams)),
            "us_per_request": {name: median(self._whole(name)) for name in self.names},
            "chunk_delay_ms": {
                str(n): {name: self._delays(name, n) for name in (DIRECT, *self.names)}
                for n in self.streams
            },
            "errors": {
                name: sum(self._at(name, n).errors for n in self.streams) for name in self.names
            },
            "ttft_added_ms": self._added(0),
            "ttft_added_to_engine_ms": self._added(ENGINE_FIRST_MS),
            "ttft_added_by_peers_ms": {
                what: {n: one for n, one in self.ttft_added_ms.get(ms, {}).items() if n != OURS}
                for what, ms in (("at_once", 0), ("to_engine", ENGINE_FIRST_MS))
            },
            "streams_1000": dict(self.streams_1000),
            "features": self._of_features() if self.features else None,
            "bars": BARS,
            "parts_s": {name: round(taken, 1) for name, taken in self.parts_s.items()},
            "load_average": {
                "before": round(self.load_before, 2), "after": round(os.getloadavg()[0], 2)
            },
            "left_out": self.left_out,
            "problems": self.problems,
        }  # fmt: skip

    def _at(self, name: str, streams: int) -> Series:
        return Series() if self.bench is None else self.bench.series[name, streams]

    def _added(self, first_ms: int) -> Mapping[str, float | None]:
        return self.ttft_added_ms.get(first_ms, {}).get(OURS, {"p50": None, "p99": None})

    def _whole(self, name: str) -> list[float]:
        return [] if self.bench is None else self.bench.whole[name].us_per_request

    def _costs(self, name: str) -> list[float]:
        return [cost for n in self.streams for cost in self._at(name, n).us_per_chunk]

    def _over(self, name: str, other: str, streams: int) -> float | None:
        """How many times as much a chunk costs at one as at another: the median of the rounds."""
        pairs = zip(
            self._at(name, streams).us_per_chunk, self._at(other, streams).us_per_chunk,
            strict=False,
        )  # fmt: skip
        ratios = [one / two for one, two in pairs if two]
        return round(statistics.median(ratios), 3) if ratios else None

    def _delays(self, name: str, streams: int) -> dict[str, float | None]:
        delays_us = self._at(name, streams).delays_us
        return {"p50": milliseconds(delays_us, 0.5), "p99": milliseconds(delays_us, 0.99)}

    def _of_features(self) -> dict[str, object]:
        """What all that can be on costs, beside all off; the medians of rounds that took turns."""
        off, on = ([self._at(name, n) for n in self.streams] for name in FEATURES)

        def delay_ms(of: Sequence[Series], name: str) -> float | None:
            return milliseconds([v for series in of for v in getattr(series, name)], 0.5)

        more = [self._over(FEATURES[1], FEATURES[0], n) for n in self.streams]
        known = [ratio for ratio in more if ratio is not None]
        return {
            "us_per_chunk": {
                "off": median(self._costs(FEATURES[0])), "on": median(self._costs(FEATURES[1]))
            },
            "more_cpu_a_chunk": round(statistics.fmean(known) - 1, 3) if known else None,
            "more_cpu_a_chunk_at": {
                str(n): None if ratio is None else round(ratio - 1, 3)
                for n, ratio in zip(self.streams, more, strict=True)
            },
            "chunk_delay_p50_ms": {
                "off": delay_ms(off, "delays_us"), "on": delay_ms(on, "delays_us")
            },
            "ttft_p50_ms": {"off": delay_ms(off, "ttfts_us"), "on": delay_ms(on, "ttfts_us")},
            "bars": {"more_cpu_a_chunk": 0.15, "more_p50_ms": 0.3},
        }  # fmt: skip


def median(values: Sequence[float]) -> float | None:
    """The median of rounds."""
    return round(statistics.median(values), 1) if values else None


async def measure(args: argparse.Namespace, report: Report) -> None:
    """All rounds; what they find goes into the report as they find it."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
        with report.part("start"):
            port, process = await stack.enter_async_context(upstream(folder))
            url = f"http://127.0.0.1:{port}"
            peers = await _start(report, Park(folder, args.peers, url, stack), folder)
            cores = sorted(os.sched_getaffinity(0))
            if len(cores) > 1:
                process.cpu_affinity(cores[1:])
                for peer in peers.values():
                    peer.pin(cores[0])
            first_ms = ENGINE_FIRST_MS if args.features else 0
            extent = Extent(
                args.seconds, args.thousand_gap_ms, args.rounds, report.streams, first_ms
            )
            report.bench = Bench(extent, peers, url, cores[1:])
        if report.bench is not None:
            await _rounds(args, report, report.bench, peers)


async def _start(report: Report, park: Park, folder: Path) -> dict[str, Peer]:
    peers: dict[str, Peer] = {}
    for name in report.names:
        try:
            peer = await park.start(name)
        except PeerError as error:
            report.problems.append(f"{name} does not start: {error} {describe(folder, name)}")
            say(report.problems[-1])
            continue
        if peer is None:
            report.left_out.append(name)
            say(f"{name} is not installed: left out")
            continue
        peers[name] = peer
        say(f"{name} serves at {peer.url}")
    return peers


async def _rounds(
    args: argparse.Namespace, report: Report, bench: Bench, peers: Mapping[str, Peer]
) -> None:
    async def one(part: str, of: Callable[[], Awaitable[None]]) -> None:
        if part in args.parts:
            with report.part(part):
                await of()

    for _ in range(args.rounds):
        for streams in report.streams:
            for name in (DIRECT, *peers):
                if name != "litellm" or streams <= LITELLM_STREAMS:
                    await one("chunks", lambda n=name, s=streams: bench.chunks(n, s))  # type: ignore[misc]
        for name in peers:
            await one("requests", lambda n=name: bench.requests(n))  # type: ignore[misc]

    async def half_load() -> None:
        for first_ms in (0, ENGINE_FIRST_MS):
            report.ttft_added_ms[first_ms] = await bench.half_load(first_ms)

    async def thousand() -> None:
        report.streams_1000 = await bench.thousand()

    if OURS in peers:
        await one("half_load", half_load)
        await one("thousand", thousand)


async def _run(args: argparse.Namespace, report: Report) -> None:
    """Measures until it is done or told to end; what was started is stopped then too."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
    await measure(args, report)


def install(folder: Path | None, report: Report) -> Path:
    """The folder of the peers' environments; made where it is missing and can be."""
    command = [Path(__file__).parent / "peers/setup.sh", *([folder] if folder else [])]
    with report.part("install"):
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return Path(done.stdout.splitlines()[-1])
        report.problems.append(f"install: ended with {done.returncode}")
    default = os.environ.get("PENSTOCK_PEERS_DIR") or Path.home() / ".cache/penstock/peers"
    return folder or Path(default)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=6.0, help="of each measurement")
    add("--streams", type=int, nargs="+", default=[32, 256])
    add("--only", nargs="+", choices=NAMES, help="leave the others out")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="leave the others out")
    add("--features", action="store_true",
        help="ours alone: limits, metering, prices and budgets on against off, before an upstream "
        f"that takes {ENGINE_FIRST_MS} ms for its first token")  # fmt: skip
    add("--quick", action="store_true", help="one short round: whether it runs, not what it says")
    add("--peers", type=Path, help="folder of the peers' environments; installed there if missing")
    add("--thousand-gap-ms", type=int, default=200, help="between chunks of the 1,000 streams")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.seconds = 1, 2.0
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Installs what is missing, measures, prints; 1 where something could not be measured."""
    args = parse(argv)
    names = FEATURES if args.features else tuple(args.only or NAMES)
    report = Report(names, tuple(args.streams), features=args.features)
    code = 0
    try:
        if {"rust_router", "litellm"} & set(names):
            args.peers = install(args.peers, report)
        args.peers = args.peers or Path()
        asyncio.run(_run(args, report))
    except (KeyboardInterrupt, asyncio.CancelledError):
        report.problems.append("interrupted")
        code = INTERRUPTED
    finally:
        sys.stdout.write(json.dumps(report.line()) + "\n")
    return code or (1 if report.problems else 0)


if __name__ == "__main__":
    sys.exit(main())
