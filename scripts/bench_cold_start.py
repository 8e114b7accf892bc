"""`make bench-cold-start`: from zero engines to the first streamed token, beside vLLM's own server.

Five models of the demo's size, all with different weights and in two shapes, and one of 100M
parameters sleep on a platform of their own. One of the five at random is called, and after them
the large one; before each call it is checked, and recorded with `--output`, that no engine is
bound, all hosts are free and no process maps any of the weights. The last line is one JSON object,
whose figures are those of the five; those of the large one stand under `large`.

One file past 300 lines: nothing else uses its parts.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models.sources import BUILTINS

GUIDE = BUILTINS["guide"]
MAKE_MODEL = Path(__file__).with_name("make_model.py")
LARGE = "large-100m"
PENSTOCK = Path(sys.executable).with_name("penstock")
KEYS = {"PENSTOCK_ADMIN_KEY": "bench-admin-key-0001", "PENSTOCK_API_KEY": "bench-tenant-key-0001"}
MODELS = 5
KV_CACHE_GIB = 0.03
QUESTION = [{"role": "user", "content": "What is Penstock?"}]
PATIENCE_S = 120.0
LAUNCHER_BAR_MIB, ENGINE_BAR_MIB = 700, 250


@dataclass(frozen=True)
class Wake:
    """One call of a sleeping model."""

    model: str
    took_s: float | None  # None: lost
    start: dict[str, Any] | None
    private_mib: float
    """Of all processes of the engine together."""
    launcher_mib: float
    load: float
    processes_that_map_weights: int
    hosts_free: int
    hosts: int


def main() -> int:
    """Returns 1 where a wake was lost."""
    options = parse()
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    try:
        weights = [make_model(folder / f"demo-{n}", seed=n) for n in range(MODELS)]
        chance = random.Random(options.seed)  # noqa: S311, a choice that can be repeated
        calls = [chance.choice(weights).name for _ in range(options.wakes)]
        if options.large_wakes:
            weights.append(make_large(folder / LARGE))
            calls += [LARGE] * options.large_wakes
        wakes = bench_wakes(calls, folder, weights)
        servers = {
            path.name: Servers(
                None if options.skip_servers else server_start_s(path, "--enforce-eager"),
                None if options.skip_servers or options.skip_default else server_start_s(path),
            )
            for path in (weights[0], weights[-1])
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.output is not None:
        rows = [asdict(one) for one in wakes]
        options.output.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    demo = [one for one in wakes if one.model != LARGE]
    large = [one for one in wakes if one.model == LARGE]
    report(demo, large, servers[weights[0].name], servers[weights[-1].name])
    return int(any(wake.took_s is None for wake in wakes))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wakes", type=int, default=40, help="calls of a sleeping model")
    parser.add_argument("--large-wakes", type=int, default=10, help="calls of the 100M model")
    parser.add_argument("--output", type=Path, help="file for all wakes with their checks, as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of models")
    parser.add_argument("--skip-servers", action="store_true", help="no eager server beside it")
    parser.add_argument("--skip-default", action="store_true", help="no compiling server: minutes")
    return parser.parse_args()


def make_model(folder: Path, seed: int) -> Path:
    """A copy of the demo model with weights of its own; every second one has a layer less."""
    from safetensors.torch import load_file, save_file  # 2 s, and only here
    from torch import Generator, randn

    shutil.copytree(GUIDE, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tensors = load_file(GUIDE / "model.safetensors")
    if seed % 2:
        last = config["num_hidden_layers"] - 1
        config["num_hidden_layers"] = last
        config["layer_types"] = config["layer_types"][:last]
        tensors = {n: t for n, t in tensors.items() if not n.startswith(f"model.layers.{last}.")}
    noise = Generator().manual_seed(seed)
    tensors = {
        name: (t.float() * (1 + 1e-3 * randn(t.shape, generator=noise))).to(t.dtype)
        for name, t in tensors.items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def make_large(folder: Path) -> Path:
    """A model of 100M parameters with random weights; its tokenizer and template are the demo's."""
    command = [sys.executable, MAKE_MODEL, folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


# --- the platform -----------------------------------------------------------------------------


class Platform:
    """A running platform, as its operator and its tenant see it."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc

    def admin(self, path: str, body: object = None) -> list[dict[str, Any]]:
        """Items of a resource, or nothing for a POST."""
        connection = http.client.HTTPConnection(self._host, timeout=30)
        headers = {"Authorization": f"Bearer {KEYS['PENSTOCK_ADMIN_KEY']}"}
        method = "GET" if body is None else "POST"
        connection.request(method, f"/admin/v1/{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {told}")
        return told.get("items", [])

    def is_all_asleep(self) -> bool:
        """Whether no engine is left and all hosts are free."""
        hosts = self.admin("hosts")
        return bool(hosts) and not self.admin("engines") and not any(h["engine_id"] for h in hosts)


@contextmanager
def platform(folder: Path) -> Iterator[Platform]:
    """Brings a platform up, and down again."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "RAY_"))}
    data = folder / "data"
    where = ("--data-dir", str(data))
    subprocess.run(
        [PENSTOCK, "up", "--detach", "--no-deploy", "--port", "0", *where],
        env=environment | KEYS, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Platform(json.loads((data / "platform.json").read_text("utf-8"))["url"])
    finally:
        subprocess.run([PENSTOCK, "down", *where], env=environment | KEYS, check=False)


def bench_wakes(calls: Sequence[str], folder: Path, weights: Sequence[Path]) -> list[Wake]:
    """Wakes models in the order of the calls.

    Raises:
        RuntimeError: If not all is asleep before a call.
    """
    wakes: list[Wake] = []
    with platform(folder) as running:
        for path in weights:
            manifest = {
                "name": path.name,
                "source": f"file://{path}",
                "engine": {"max_num_seqs": 8, "kv_cache_gib": KV_CACHE_GIB},
                "scaling": {"idle_timeout_s": 0.5},
            }
            running.admin("models", manifest)
        for count, model in enumerate(calls):
            wait_until(running.is_all_asleep)
            time.sleep(0.3)
            mapped = [pid for pid in processes() if maps_any(pid, folder)]
            hosts = running.admin("hosts")
            free = sum(host["engine_id"] is None for host in hosts)
            if mapped or free < len(hosts) or running.admin("engines"):
                raise RuntimeError(f"not all asleep before wake {count}: {mapped} map weights")
            one = wake(running, model, len(mapped), free, len(hosts))
            wakes.append(one)
            took = "lost" if one.took_s is None else f"{one.took_s:.3f} s"
            say(
                f"wake {count + 1}/{len(calls)}: {model} {took}; before it {len(mapped)} processes"
                f" mapped weights, {free} of {len(hosts)} hosts were free; load {one.load:.1f}"
            )
    return wakes


_launchers: list[int] = []


def launcher_of(running: Platform) -> int:
    """The parent of an engine; remembered, for engines come and go."""
    for engine in running.admin("engines"):
        if not _launchers and engine["pid"] and Path(f"/proc/{engine['pid']}").exists():
            status = Path(f"/proc/{engine['pid']}/status").read_text("ascii")
            _launchers.append(int(status.split("PPid:")[1].split()[0]))
    return _launchers[0] if _launchers else 0


def wake(running: Platform, model: str, mapped: int, hosts_free: int, hosts: int) -> Wake:
    """Calls a model and measures until its first token; what was checked before is noted."""
    load = os.getloadavg()[0]
    checked = {"processes_that_map_weights": mapped, "hosts_free": hosts_free, "hosts": hosts}
    try:
        took_s = first_token_s(running._host, model, KEYS["PENSTOCK_API_KEY"])
    except (OSError, http.client.HTTPException, RuntimeError) as exc:
        say(f"lost: {exc!r}")
        return Wake(model, None, None, 0.0, 0.0, load, **checked)
    pids = [engine["pid"] for engine in running.admin("engines") if engine["pid"]]
    private = max((sum(map(private_mib, family(top))) for top in pids), default=0.0)
    launcher_mib = resident_mib(launcher_of(running))
    start = running.admin(f"models/{model}/starts")[-1]
    return Wake(model, took_s, start, private, launcher_mib, load, **checked)


def first_token_s(host: str, model: str, key: str) -> float:
    """Seconds from a request to the first streamed token; the stream is read to its end."""
    body = {"model": model, "messages": QUESTION, "stream": True, "max_tokens": 8}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    began_s = time.perf_counter()
    connection = http.client.HTTPConnection(host, timeout=PATIENCE_S)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {answer.read()[:200]!r}")
        first_s = None
        for line in answer:
            told = json.loads(line[6:]) if line.startswith(b"data: {") else {}
            choices = told.get("choices") or [{}]
            if first_s is None and choices[0].get("delta", {}).get("content"):
                first_s = time.perf_counter() - began_s
        if first_s is None:
            raise RuntimeError("the stream had no token")
        return first_s
    finally:
        connection.close()


# --- processes --------------------------------------------------------------------------------


def processes() -> list[int]:
    """All processes of this machine."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def maps_any(pid: int, folder: Path) -> bool:
    """Whether the process maps a file of weights below the folder."""
    try:
        text = Path(f"/proc/{pid}/maps").read_text("utf-8", "replace")
    except OSError:
        return False
    return any(str(folder) in line and ".safetensors" in line for line in text.splitlines())


def family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return []
    return [pid, *map(int, children)]


def private_mib(pid: int) -> float:
    """Memory that the process shares with none."""
    return _sum_kib(Path(f"/proc/{pid}/smaps_rollup"), "Private_") / 1024


def resident_mib(pid: int) -> float:
    """Memory of the process that is resident."""
    return _sum_kib(Path(f"/proc/{pid}/status"), "VmRSS:") / 1024


def _sum_kib(path: Path, prefix: str) -> int:
    try:
        lines = path.read_text("ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(prefix))


# --- the ordinary server ----------------------------------------------------------------------


def server_start_s(folder: Path, *more: str) -> float:
    """Seconds from the start of vLLM's own server to its first streamed token; its second start,
    so that its caches are warm."""
    return [_server_start_s(folder, *more) for _ in range(2)][-1]


def _server_start_s(folder: Path, *more: str) -> float:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    say(f"vLLM's own server {' '.join(more) or '(default)'}")
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}",
        f"--kv-cache-memory-bytes={int(KV_CACHE_GIB * 2**30)}", "--max-num-seqs=8",
        "--served-model-name=bench", "--host=127.0.0.1", f"--port={port}", *more,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    began_s = time.perf_counter()
    server = subprocess.Popen(
        command, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while server.poll() is None and time.perf_counter() - began_s < 5 * PATIENCE_S:
            try:
                first_token_s(f"127.0.0.1:{port}", "bench", "none")
                return time.perf_counter() - began_s
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise RuntimeError("vLLM's own server did not start")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


# --- the report -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Servers:
    """Seconds that vLLM's own server takes to its first token; None: not measured."""

    eager_s: float | None
    default_s: float | None


def report(demo: list[Wake], large: list[Wake], server: Servers, large_server: Servers) -> None:
    """Prints figures, the waterfalls of median wakes, and the JSON line."""
    line: dict[str, Any] = {"bench": "cold-start", **figures(demo, server)}
    if large:
        line["large"] = figures(large, large_server)
    launcher_mib = max(one.launcher_mib for one in [*demo, *large])
    private = max(one.private_mib for one in demo)
    say(f"launcher {launcher_mib:.0f} MiB resident (bar {LAUNCHER_BAR_MIB})")
    say(f"largest demo engine {private:.0f} MiB private, its processes together"
        f" (bar {ENGINE_BAR_MIB})")  # fmt: skip
    loads = [one.load for one in demo]
    say(f"load average {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} CPUs")
    line |= {
        "launcher_mib": round(launcher_mib),
        "engine_private_mib": round(private),
        "mapped_before": sum(one.processes_that_map_weights for one in [*demo, *large]),
        "hosts_taken_before": sum(one.hosts - one.hosts_free for one in [*demo, *large]),
        "load": [round(min(loads), 1), round(max(loads), 1)],
    }
    sys.stdout.write(json.dumps(line) + "\n")


def figures(wakes: list[Wake], server: Servers) -> dict[str, Any]:
    """What the JSON line says of some wakes; prints the waterfall of their median.

    Raises:
        RuntimeError: If all were lost.
    """
    done = sorted((w for w in wakes if w.took_s is not None), key=lambda w: w.took_s or 0.0)
    times = [w.took_s or 0.0 for w in done]
    if not done:
        raise RuntimeError("every wake was lost")
    middle = done[len(done) // 2]
    say(f"\nwaterfall of a median wake, {middle.model}:")
    before = 0.0
    for mark in (middle.start or {}).get("marks", []):
        say(f"  {mark['phase']:<13} {1000 * (mark['at_s'] - before):7.1f} ms"
            f"   at {1000 * mark['at_s']:7.1f} ms")  # fmt: skip
        before = mark["at_s"]
    median_s = statistics.median(times)
    return {
        "median_s": round(median_s, 3),
        "p95_s": round(times[min(len(times) - 1, int(0.95 * len(times)))], 3),
        "max_s": round(times[-1], 3),
        "wakes": len(wakes),
        "lost": len(wakes) - len(done),
        "server_eager_s": server.eager_s and round(server.eager_s, 1),
        "server_default_s": server.default_s and round(server.default_s, 1),
        "speedup": server.eager_s and round(server.eager_s / median_s, 1),
    }


def say(text: str) -> None:
    """One line of the report."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def wait_until(check: Any) -> None:
    """Polls until the check holds.

    Raises:
        RuntimeError: If it does not in time.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    while not check():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"not in time: {check.__name__}")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
