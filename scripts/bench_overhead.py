"""`make bench-overhead`: the platform against the same engine, called directly.

Starts a platform of its own, deploys the built-in model and one of 100M parameters with random
weights, and lets `penstock bench --versus` run both ways in turn, in at least ten pairs at each
concurrency. With the built-in model, whose engine is so fast that the way shows, it also runs a
Rust router (which cannot show the engine's token: nginx does on its way, and is measured alone too)
and LiteLLM in front of the same engine, each in turn with the platform. Prints a table
and, last, one JSON line, whatever went wrong: the line says under `problems` what could not be
measured. Run it on a machine that does nothing else: the load average before and after stands in
the line.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from scripts.own_platform import DEMO, LARGE, BenchError, Platform, Subject, platform
from scripts.peers.gateways import Park, describe
from scripts.peers.parts import PartedReport
from scripts.peers.processes import PeerError

MAKE_MODEL = Path(__file__).with_name("make_model.py")
SETUP_PEERS = Path(__file__).with_name("peers") / "setup.sh"
INPUT_TOKENS = 64
TRUSTED_PAIRS = 10
INTERRUPTED = 130
PEERS = ("nginx", "rust_router", "litellm")
BESIDE_CONCURRENCY = 32
BESIDE_REQUESTS = 128
"""Of a run: some seconds, where a visitor's one request would be over in half of one."""

BAR_OVER_RUST_ROUTER = 0.9


@dataclass(frozen=True)
class Found:
    """What a model showed at one concurrency: the bench command's comparison, and CPU seconds."""

    concurrency: int
    # As JSON says it: a figure's name, then `a`, `b` (medians), `ratio` and `added` (intervals).
    compared: dict[str, dict[str, Any]]
    cpu_s: dict[str, float]
    complaints: tuple[str, ...]


@dataclass(frozen=True)
class Other:
    """A server that the platform is compared with."""

    url: str
    key: str
    model: str


def measure(
    running: Platform, subject: Subject, concurrency: int, pairs: int, other: Other | None = None
) -> Found:
    """Runs the pairs: against the bare engine, or another server.

    Raises:
        BenchError: A command failed.
    """
    least = subject.least_requests if other is None else BESIDE_REQUESTS
    if other is None:
        other = Other(*running.engine(subject.name), subject.name)
    requests = max(concurrency, least)
    before, client_before_s = running.cpu_s(), _children_s()
    said = running.penstock(
        "bench", running.url, "--model", subject.name, "--versus", other.url, "--versus-api-key",
        other.key, "--versus-model", other.model, "--concurrency", str(concurrency),
        "--requests", str(requests), "--input-tokens", str(INPUT_TOKENS),
        "--output-tokens", str(subject.output_tokens), "--ignore-eos", "--pairs", str(pairs),
        "--output", "json",
    )  # fmt: skip
    after = running.cpu_s()
    used = {name: round(after[name] - before.get(name, 0.0), 2) for name in after}
    used["client"] = round(_children_s() - client_before_s, 2)
    try:
        answer = json.loads(said)
        return Found(concurrency, answer["figures"], used, tuple(answer["complaints"]))
    except (ValueError, KeyError) as error:
        raise BenchError(f"penstock bench said no comparison: {error}") from error


async def measure_beside(
    running: Platform, name: str, pairs: int, folder: Path, venvs: Path
) -> Found | None:
    """The platform and another gateway, in turn before the same engine of the built-in model; None
    where that gateway is not installed.

    Raises:
        BenchError: A command failed.
        PeerError: The other gateway does not serve.
    """
    url, token = running.engine(DEMO.name)
    async with AsyncExitStack() as stack:
        park: Park = Park(folder, venvs, url, stack, token)
        try:
            if name == "rust_router":  # shows engines no token: nginx does, on its way
                if (before := await park.start("nginx")) is None:
                    return None
                park = Park(folder, venvs, before.url, stack)
            peer = await park.start(name)
        except PeerError as error:
            raise PeerError(f"{error} {describe(folder, name)}") from error
        if peer is None:
            return None
        other = Other(peer.url, peer.key, DEMO.name)
        return measure(running, DEMO, BESIDE_CONCURRENCY, pairs, other)


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def figures(found: Sequence[Found]) -> dict[str, object]:
    """The figures of one model for the JSON line. Times are in milliseconds, and of the lowest
    concurrency where they are single; `..._each` holds all of them."""

    def each(name: str, kind: str, scale: float = 1.0) -> dict[str, float]:
        return {
            f"c{one.concurrency}": round(one.compared[name][kind]["estimate"] * scale, 4)
            for one in found
        }

    def ends(name: str, kind: str, scale: float = 1.0) -> dict[str, list[float]]:
        return {
            f"c{one.concurrency}": [
                round(one.compared[name][kind][end] * scale, 4) for end in ("low", "high")
            ]
            for one in found
        }

    shown: dict[str, object] = {
        "throughput_ratio": each("output_rate", "ratio"),
        "throughput_ratio_ci": ends("output_rate", "ratio"),
    }
    for mark in ("p50", "p99"):
        added_ms = each(f"ttft_{mark}", "added", 1000.0)
        shown[f"ttft_added_ms_{mark}"] = next(iter(added_ms.values()))
        shown[f"ttft_added_ms_{mark}_each"] = added_ms
        shown[f"ttft_added_ms_{mark}_ci"] = ends(f"ttft_{mark}", "added", 1000.0)
    shown["ttft_ms_p50_bare"] = {
        f"c{one.concurrency}": round(float(one.compared["ttft_p50"]["b"]) * 1000, 2)
        for one in found
    }
    shown["cpu_s"] = {f"c{one.concurrency}": one.cpu_s for one in found}
    shown["complaints"] = sorted({said for one in found for said in one.complaints})
    return shown


@dataclass
class Report(PartedReport):
    """What is known so far, and what went wrong."""

    expected = (
        BenchError, PeerError, OSError, ValueError, httpx.HTTPError, psutil.Error,
        subprocess.CalledProcessError,
    )  # fmt: skip

    pairs: int
    found: dict[Subject, list[Found]] = field(default_factory=dict)
    beside: dict[str, Found] = field(default_factory=dict)  # by the other gateway's name

    def line(self) -> dict[str, object]:
        """The last line: the 100M model's figures outside, those of the built-in one under `demo`,
        and there under `beside` what each other gateway showed."""
        line: dict[str, object] = {"bench": "overhead"}
        if self.found.get(LARGE):
            line |= figures(self.found[LARGE])
        demo: dict[str, object] = figures(self.found[DEMO]) if self.found.get(DEMO) else {}
        if self.beside:
            demo["beside"] = {name: figures([one]) for name, one in self.beside.items()}
        load = {"before": round(self.load_before, 2), "after": round(os.getloadavg()[0], 2)}
        return line | {
            "demo": demo or None, "pairs": self.pairs,
            "bars": {"throughput_ratio_c32": 0.98, "demo_over_rust_router": BAR_OVER_RUST_ROUTER},
            "parts_s": {name: round(taken, 1) for name, taken in self.parts_s.items()},
            "load_average": load, "left_out": self.left_out, "problems": self.problems,
        }  # fmt: skip


def table(report: Report) -> Table:
    """The same for a terminal."""
    rows = Table(title="Platform (A) over another way (B)", title_justify="left", show_edge=False)
    rows.add_column("model")
    rows.add_column("B")
    for heading in ("at once", "A tokens/s", "B tokens/s", "A / B", "95 %", "TTFT p50 added ms",
                    "p99 added ms", "CPU s gateway", "engine", "client"):  # fmt: skip
        rows.add_column(heading, justify="right")
    shown = [(subject.name, "bare", one) for subject, each in report.found.items() for one in each]
    shown += [(DEMO.name, name, one) for name, one in report.beside.items()]
    for model, other, one in shown:
        rate, ttft = one.compared["output_rate"], one.compared["ttft_p50"]
        tail = one.compared["ttft_p99"]
        rows.add_row(
            model,
            other,
            str(one.concurrency),
            f"{rate['a']:,.0f}",
            f"{rate['b']:,.0f}",
            f"{rate['ratio']['estimate']:.3f}",
            f"{rate['ratio']['low']:.3f} to {rate['ratio']['high']:.3f}",
            f"{ttft['added']['estimate'] * 1000:.2f}",
            f"{tail['added']['estimate'] * 1000:.2f}",
            *(f"{one.cpu_s.get(part, 0.0):.1f}" for part in ("gateway", "engine", "client")),
        )
    return rows


def peers_folder(given: Path | None, report: Report) -> Path:
    """Where the other gateways are installed; made where it is missing and can be."""
    command = [SETUP_PEERS, *([given] if given else [])]
    with report.part("install"):
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return Path(done.stdout.splitlines()[-1])
    default = os.environ.get("PENSTOCK_PEERS_DIR") or Path.home() / ".cache/penstock/peers"
    return given or Path(default)


def run(parsed: argparse.Namespace, report: Report, folder: Path) -> None:
    """Measures what is asked for; what fails is noted, and does not end the rest."""
    sources = {}
    if "demo" in parsed.models or parsed.beside:
        sources[DEMO] = "builtin://guide"
    if "100m" in parsed.models:
        with report.part("make 100m"):
            subprocess.run([sys.executable, MAKE_MODEL, folder / "100m"], check=True,
                           stdout=sys.stderr)  # fmt: skip
            sources[LARGE] = (folder / "100m").as_uri()
    venvs = peers_folder(parsed.peers, report) if parsed.beside else Path()
    with report.part("platform"), platform(folder) as running:
        for subject in sorted(sources, key=lambda one: one is DEMO):
            with report.part(f"deploy {subject.name}"):
                running.deploy(subject, sources[subject])
            if subject is LARGE or "demo" in parsed.models:
                for concurrency in parsed.concurrency:
                    sys.stderr.write(f"{subject.name}, {concurrency} at once\n")
                    with report.part(f"{subject.name} at {concurrency}"):
                        one = measure(running, subject, concurrency, report.pairs)
                        report.found.setdefault(subject, []).append(one)
            for name in parsed.beside if subject is DEMO else ():
                sys.stderr.write(f"{subject.name}, beside {name}\n")
                with report.part(f"beside {name}"):
                    beside = asyncio.run(measure_beside(running, name, report.pairs, folder, venvs))
                    if beside is None:
                        report.left_out.append(name)
                    else:
                        report.beside[name] = beside
            with report.part(f"delete {subject.name}"):
                running.penstock("delete", subject.name, url=running.url)
            time.sleep(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; 1 where something could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=TRUSTED_PAIRS)
    parser.add_argument("--quick", action="store_true", help="three pairs: too few for an interval")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--models", nargs="*", choices=("100m", "demo"), default=["100m", "demo"])
    parser.add_argument("--beside", nargs="*", choices=PEERS, default=list(PEERS),
                        help="other gateways, or none, before the built-in model")  # fmt: skip
    parser.add_argument("--peers", type=Path, help="folder of the other gateways' environments")
    parsed = parser.parse_args(argv)
    report = Report(3 if parsed.quick else parsed.pairs)
    # So that the platform is stopped then too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = 0
    try:
        with tempfile.TemporaryDirectory(prefix="overhead-") as name:
            run(parsed, report, Path(name))
    except KeyboardInterrupt:
        report.problems.append("interrupted")
        code = INTERRUPTED
    finally:
        Console(width=160, highlight=False).print(table(report))
        sys.stdout.write(json.dumps(report.line()) + "\n")
    return code or (1 if report.problems else 0)


if __name__ == "__main__":
    sys.exit(main())
