"""What is measured of gateways, one at a time before one upstream, and what was found so far."""

import asyncio
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

import psutil

from scripts.peers.load import Findings, Plan
from scripts.peers.processes import Peer

DIRECT = "direct"
"""The upstream itself, without a gateway."""

OURS = "penstock"
HALF_LOAD = 0.5
PACE_PER_S = 50.0
LITELLM_STREAMS = 32
"""LiteLLM is saturated by 32 streams already; 256 only make its queue longer."""

GRACE_S = 60.0
"""A load that is not over so long after its time is given up: the machine, or the gateway, is
stuck."""


class RoundError(Exception):
    """One measurement could not be made."""


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


def difference(ours: float | None, theirs: float | None) -> float | None:
    """Microseconds apart, in milliseconds."""
    return None if ours is None or theirs is None else round((ours - theirs) / 1000, 3)


def say(text: str) -> None:
    """Progress, for people."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


async def drive(
    plan: Plan, peer: Peer | None, cpus: Sequence[int], grace_s: float = GRACE_S
) -> tuple[Findings, float]:
    """Runs a plan in a process of its own; the gateway's CPU seconds while it counted.

    Raises:
        RoundError: If the gateway or the load died, or the load did not end in its time.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.peers.load", json.dumps(asdict(plan)),
        stdout=asyncio.subprocess.PIPE, limit=2**28,
    )  # fmt: skip
    if process.stdout is None:
        raise RoundError("the load's output is not there")
    marks: list[float] = []
    last = b"{}"
    try:
        if cpus:
            with suppress(psutil.Error):
                psutil.Process(process.pid).cpu_affinity(list(cpus))
        async with asyncio.timeout(plan.ramp_s + plan.warm_s + plan.seconds + grace_s):
            while line := await process.stdout.readline():
                if b'"counting"' in line:
                    marks.append(peer.cpu_s() if peer else 0.0)
                last = line
            await process.wait()
    except TimeoutError:
        raise RoundError(f"the load did not end within {grace_s:g} s of its time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode or len(marks) != 2:
        raise RoundError(f"the load ended with {process.returncode}")
    if peer is not None and not peer.serves:
        raise RoundError(f"{peer.name} has died")
    try:
        return Findings(**json.loads(last)), marks[1] - marks[0]
    except json.JSONDecodeError:
        raise RoundError("what the load found was cut off") from None


@dataclass(frozen=True)
class Extent:
    """How long and how much is measured."""

    seconds: float
    thousand_gap_ms: int
    rounds: int
    streams: tuple[int, ...]
    first_ms: int = 0  # that the upstream takes for a stream's first token


class Bench:
    """The gateways that serve, and what was found of them."""

    def __init__(
        self, extent: Extent, peers: Mapping[str, Peer], direct: str, others: Sequence[int]
    ) -> None:
        self._extent = extent
        self._peers = peers
        self._direct = direct  # URL of the upstream
        self._others = others  # cores that are not the gateway's
        self.series: defaultdict[tuple[str, int], Series] = defaultdict(Series)
        self.whole: defaultdict[str, Series] = defaultdict(Series)

    def plan(self, name: str, streams: int, **changes: object) -> Plan:
        """What is asked of one gateway."""
        peer = self._peers.get(name)
        plan = Plan(
            url=peer.url if peer else self._direct, key=peer.key if peer else "none",
            streams=streams, seconds=self._extent.seconds, warm_s=1.5,
            gap_us=round(1e6 / PACE_PER_S), first_ms=self._extent.first_ms,
        )  # fmt: skip
        return replace(plan, **changes)  # type: ignore[arg-type]

    async def chunks(self, name: str, streams: int) -> None:
        """One gateway under streams.

        Raises:
            RoundError: If it could not be measured.
        """
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
        """One gateway under short requests that are answered as a whole.

        Raises:
            RoundError: If it could not be measured.
        """
        plan = self.plan(name, 8, stream=False, chunks=1)
        found, cpu_s = await drive(plan, self._peers.get(name), self._others)
        if found.requests:
            self.whole[name].us_per_request.append(cpu_s / found.requests * 1e6)
        say(f"{name:12} {found.requests:7} whole answers, "
            f"{cpu_s / max(1, found.requests) * 1e6:7.1f} us each {found.bad[:200]}")  # fmt: skip

    async def half_load(self, first_ms: int) -> dict[str, dict[str, float | None]]:
        """The time to the first token that each gateway adds, beside the load that takes half of
        our gateway's core; LiteLLM, which that load is too much for, is left out.

        Args:
            first_ms: What the upstream itself takes for it.

        Raises:
            RoundError: If it could not be measured.
        """
        if not self._costs():
            await self.chunks(OURS, self._extent.streams[0])
        if not (costs := self._costs()):
            raise RoundError("nobody knows what a chunk costs")
        streams = max(8, round(HALF_LOAD * 1e6 / statistics.median(costs) / PACE_PER_S))
        times: dict[str, list[int]] = {
            name: [] for name in (DIRECT, *self._peers) if name != "litellm"
        }
        for _ in range(self._extent.rounds):
            for name, seen in times.items():
                seen += await self._ttfts_beside(name, streams, first_ms)
        direct = times.pop(DIRECT)
        added = {
            name: {
                share: difference(quantile(seen, at), quantile(direct, at))
                for share, at in (("p50", 0.5), ("p99", 0.99))
            }
            for name, seen in times.items()
        }
        say(f"half load: {streams} streams, upstream's first token after {first_ms} ms, "
            f"TTFT added {added} ms")  # fmt: skip
        return added

    async def _ttfts_beside(self, name: str, streams: int, first_ms: int) -> list[int]:
        """Short answers that begin all the time, among the long ones that make the load."""
        seconds = self._extent.seconds
        load = self.plan(name, streams, seconds=seconds + 3.0, chunks=1000)
        probe = self.plan(name, 4, chunks=3, seconds=seconds, first_ms=first_ms)
        peer = self._peers.get(name)
        background = asyncio.create_task(drive(load, peer, self._others))
        try:
            await asyncio.sleep(2.5)
            found, _ = await drive(probe, peer, self._others)
            await background
        finally:
            background.cancel()
            await asyncio.gather(background, return_exceptions=True)
        return found.ttfts_us

    def _costs(self) -> list[float]:
        return [c for (name, _), s in self.series.items() if name == OURS for c in s.us_per_chunk]

    async def thousand(self) -> dict[str, float]:
        """1,000 streams at once on one core.

        Raises:
            RoundError: If it could not be measured.
        """
        peer = self._peers[OURS]
        plan = self.plan(OURS, 1000, gap_us=self._extent.thousand_gap_ms * 1000, ramp_s=3.0,
                         warm_s=4.0)  # fmt: skip
        found, cpu_s = await drive(plan, peer, self._others)
        rss_mib = round(peer.peak_rss_mib(), 1)
        say(f"1000 streams: {found.chunks} chunks, errors {found.errors} {found.bad[:200]}, "
            f"{cpu_s / found.seconds:.2f} cores, delay p99 "
            f"{milliseconds(found.delays_us, 0.99)} ms, RSS {rss_mib} MiB")  # fmt: skip
        return {"errors": found.errors, "rss_mib": rss_mib, "chunks": found.chunks,
                "cores": round(cpu_s / found.seconds, 2)}  # fmt: skip
