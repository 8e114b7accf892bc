"""`make bench-overhead`: the platform against the same engine, called directly.

Starts a platform of its own, deploys the built-in model and one of 100M parameters with random
weights, and lets `penstock bench --versus` run both ways in turn, in at least ten pairs at each
concurrency. Prints a table and, last, one JSON line. Run it on a machine that does nothing else:
the load average before and after stands in the line.
"""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from rich.console import Console
from rich.table import Table

PENSTOCK = Path(sys.executable).with_name("penstock")
MAKE_MODEL = Path(__file__).with_name("make_model.py")
INPUT_TOKENS = 64
TRUSTED_PAIRS = 10
INTERRUPTED = 130


class BenchError(Exception):
    """A command that the benchmark needs did not do what it should."""


@dataclass(frozen=True)
class Subject:
    """A model to measure with."""

    name: str
    output_tokens: int
    least_requests: int
    """Requests of a run, where its visitors are fewer."""

    def manifest(self, source: str) -> dict[str, object]:
        """One engine that is always awake, with room for the highest concurrency."""
        return {
            "name": self.name,
            "source": source,
            "engine": {"max_num_seqs": 64, "max_model_len": 1024, "kv_cache_gib": 0.75},
            "resources": {"memory_gib": 3},
            "scaling": {"min": 1, "max": 1},
        }


LARGE = Subject("random-100m", 48, 4)
DEMO = Subject("demo", 64, 8)


@dataclass(frozen=True)
class Platform:
    """A platform of this benchmark's own."""

    data_dir: Path
    environment: Mapping[str, str]

    @property
    def state(self) -> dict[str, object]:
        return dict(json.loads((self.data_dir / "platform.json").read_text()))

    @property
    def url(self) -> str:
        return str(self.state["url"])

    def penstock(self, *arguments: str, url: str | None = None) -> str:
        """Runs a command; gives back what it says on stdout. Its stderr goes to ours.

        Raises:
            BenchError: It failed.
        """
        where = {} if url is None else {"PENSTOCK_URL": url}
        done = subprocess.run(
            [PENSTOCK, *arguments], env={**self.environment, **where}, stdout=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode not in (0, 1):  # 1: a comparison that is not valid, and says why
            raise BenchError(f"penstock {arguments[0]} ended with {done.returncode}")
        return done.stdout

    def deploy(self, subject: Subject, source: str) -> None:
        """Deploys a model and waits until it is awake."""
        file = self.data_dir / f"{subject.name}.yaml"
        file.write_text(yaml.safe_dump(subject.manifest(source)))
        self.penstock("deploy", "-f", str(file), url=self.url)

    def engine(self, model: str) -> tuple[str, str]:
        """URL and token of the model's engine, as the gateways are told them.

        Raises:
            BenchError: There is not exactly one.
        """
        ports = self.state["ports"]
        token = (self.data_dir / "internal-token").read_text().strip()
        routes = httpx.get(
            f"http://127.0.0.1:{dict(ports)['controller']}/internal/v1/routes?after=0",  # type: ignore[call-overload]
            headers={"Authorization": f"Bearer {token}"},
        ).json()
        found = [e for m in routes["models"] if m["name"] == model for e in m["endpoints"]]
        if len(found) != 1:
            raise BenchError(f"{model} has {len(found)} engines, not one")
        return str(found[0]["url"]), str(found[0]["token"])

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far of each part; engines are children of the launcher."""
        parts: dict[str, dict[str, int]] = self.state["parts"]  # type: ignore[assignment]
        used: dict[str, float] = {}
        for name, part in parts.items():
            try:
                process = psutil.Process(part["pid"])
                children = process.children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            used[name] = _cpu_s([process])
            below = "engine" if name == "launcher" else name
            used[below] = used.get(below, 0.0) + _cpu_s(children)
        return used


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    total_s = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total_s += times.user + times.system
    return total_s


@contextmanager
def platform(folder: Path) -> Iterator[Platform]:
    """Starts a platform, and stops it after use.

    Raises:
        BenchError: It does not start.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "RAY_"))}
    keys = {
        "PENSTOCK_ADMIN_KEY": secrets.token_urlsafe(24),
        "PENSTOCK_API_KEY": secrets.token_urlsafe(24),
    }
    running = Platform(folder / "data", clean | keys)
    where = ("--data-dir", str(running.data_dir))
    running.penstock("up", "--detach", "--port", "0", "--no-deploy", *where)
    try:
        yield running
    finally:
        running.penstock("down", *where)


@dataclass(frozen=True)
class Found:
    """What a model showed at one concurrency: the bench command's comparison, and CPU seconds."""

    concurrency: int
    # As JSON says it: a figure's name, then `a`, `b` (medians), `ratio` and `added` (intervals).
    compared: dict[str, dict[str, Any]]
    cpu_s: dict[str, float]
    complaints: tuple[str, ...]


def measure(running: Platform, subject: Subject, concurrency: int, pairs: int) -> Found:
    """Runs the pairs.

    Raises:
        BenchError: A command failed.
    """
    url, token = running.engine(subject.name)
    requests = max(concurrency, subject.least_requests)
    before, client_before_s = running.cpu_s(), _children_s()
    said = running.penstock(
        "bench", running.url, "--model", subject.name, "--versus", url, "--versus-api-key", token,
        "--versus-model", subject.name, "--concurrency", str(concurrency),
        "--requests", str(requests), "--input-tokens", str(INPUT_TOKENS),
        "--output-tokens", str(subject.output_tokens), "--ignore-eos", "--pairs", str(pairs),
        "--output", "json",
    )  # fmt: skip
    after = running.cpu_s()
    used = {name: round(after[name] - before.get(name, 0.0), 2) for name in after}
    used["client"] = round(_children_s() - client_before_s, 2)
    answer = json.loads(said)
    return Found(concurrency, answer["figures"], used, tuple(answer["complaints"]))


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


def json_line(
    found: Mapping[Subject, Sequence[Found]], pairs: int, load: tuple[float, float]
) -> dict[str, object]:
    """The last line: the 100M model's figures outside, those of the built-in one under `demo`."""
    line: dict[str, object] = {"bench": "overhead"}
    if LARGE in found:
        line |= figures(found[LARGE])
    if DEMO in found:
        line["demo"] = figures(found[DEMO])
    return line | {"pairs": pairs, "load_average": {"before": load[0], "after": load[1]}}


def table(found: Mapping[Subject, Sequence[Found]]) -> Table:
    """The same for a terminal."""
    rows = Table(title="Platform (A) over bare engine (B)", title_justify="left", show_edge=False)
    rows.add_column("model")
    for heading in ("at once", "A tokens/s", "B tokens/s", "A / B", "95 %", "TTFT p50 added ms",
                    "p99 added ms", "CPU s gateway", "engine", "client"):  # fmt: skip
        rows.add_column(heading, justify="right")
    for subject, each in found.items():
        for one in each:
            rate, ttft = one.compared["output_rate"], one.compared["ttft_p50"]
            tail = one.compared["ttft_p99"]
            rows.add_row(
                subject.name,
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=TRUSTED_PAIRS)
    parser.add_argument("--quick", action="store_true", help="three pairs: too few for an interval")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--models", nargs="+", choices=("100m", "demo"), default=["100m", "demo"])
    parsed = parser.parse_args(argv)
    pairs = 3 if parsed.quick else parsed.pairs
    # So that the platform is stopped then too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    said = Console(stderr=True, highlight=False, soft_wrap=True)
    load_before = os.getloadavg()[0]
    found: dict[Subject, list[Found]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="overhead-") as name:
            folder = Path(name)
            sources = {}
            if "100m" in parsed.models:
                subprocess.run([sys.executable, MAKE_MODEL, folder / "100m"], check=True,
                               stdout=sys.stderr)  # fmt: skip
                sources[LARGE] = (folder / "100m").as_uri()
            if "demo" in parsed.models:
                sources[DEMO] = "builtin://guide"
            with platform(folder) as running:
                for subject, source in sources.items():
                    running.deploy(subject, source)
                    found[subject] = []
                    for concurrency in parsed.concurrency:
                        said.print(f"{subject.name}, {concurrency} at once, {pairs} pairs")
                        one = measure(running, subject, concurrency, pairs)
                        found[subject].append(one)
                    running.penstock("delete", subject.name, url=running.url)
                    time.sleep(1)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (BenchError, subprocess.CalledProcessError) as error:
        said.print(f"error: {error}")
        return 1
    Console(width=150, highlight=False).print(table(found))
    load = (round(load_before, 2), round(os.getloadavg()[0], 2))
    sys.stdout.write(json.dumps(json_line(found, pairs, load)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
