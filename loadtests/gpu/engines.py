"""The two servers that are compared: vLLM's own, and the platform; both end with their block."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from loadtests.gpu.load import LoadError, Target
from loadtests.gpu.plan import Plan
from loadtests.gpu.shapes import Shape

ENTRY_POINT = "vllm.entrypoints.openai.api_server"
BARE_PATIENCE_S = 300.0
BARE_PID = "bare.pid"
KV_CACHE_BYTES = 64 << 20
"""On a CPU, where vLLM would take nearly all memory."""
PLATFORM = "serving.cli.main"
MODEL = "shape"
"""What models are called at both servers."""


def vllm_flags(plan: Plan, shape: Shape) -> list[str]:
    """vLLM's arguments for a shape; the platform is told the same by `manifest`."""
    flags = [f"--max-model-len={plan.max_model_len}", f"--max-num-seqs={plan.slots}"]
    if shape.fp8:
        flags.append("--load-format=dummy")
    if plan.cpu:
        flags += ["--enforce-eager", f"--kv-cache-memory-bytes={KV_CACHE_BYTES}",
                  "--distributed-executor-backend=uni"]  # fmt: skip
    return flags


def manifest(plan: Plan, shape: Shape, folder: Path, **scaling: object) -> dict[str, object]:
    """The same for the platform."""
    engine: dict[str, object] = {"max_model_len": plan.max_model_len, "max_num_seqs": plan.slots}
    if shape.fp8:
        engine["load_format"] = "dummy"
    resources: dict[str, object] = {"memory_gib": 1.0}
    if plan.cpu:
        engine["kv_cache_gib"] = KV_CACHE_BYTES / 2**30
    else:
        resources = {"accelerator": plan.accelerator, "gpus": 1, "memory_gib": 8.0}
    return {
        "name": MODEL, "source": folder.as_uri(), "engine": engine, "resources": resources,
        "scaling": {"min": 0, "max": 1, **scaling},
    }  # fmt: skip


@contextmanager
def bare(plan: Plan, shape: Shape, folder: Path) -> Iterator[tuple[Target, float]]:
    """vLLM's own server; gives it, and the seconds until it was healthy.

    Raises:
        LoadError: If it does not come up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        plan.python, "-m", ENTRY_POINT, f"--model={folder}", f"--served-model-name={MODEL}",
        "--host=127.0.0.1", f"--port={port}", "--uvicorn-log-level=warning",
        "--disable-uvicorn-access-log", *vllm_flags(plan, shape),
    ]  # fmt: skip
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    if plan.cpu:
        environment |= {"OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    log_path = plan.folder / f"bare-{shape.name}.log"
    began_s = time.monotonic()
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    note = plan.folder / BARE_PID
    note.write_text(str(server.pid))
    try:
        url = f"http://127.0.0.1:{port}"
        while not _is_healthy(url):
            if server.poll() is not None:
                raise LoadError(f"vLLM's server ended with {server.returncode}: {tail(log_path)}")
            if time.monotonic() - began_s > BARE_PATIENCE_S:
                raise LoadError(f"vLLM's server is not up after {BARE_PATIENCE_S:.0f} s")
            time.sleep(0.05)
        yield Target(url, MODEL), time.monotonic() - began_s
    finally:
        end_group(server)
        note.unlink(missing_ok=True)


def end_left_server(folder: Path) -> None:
    """Ends the bare server of a part that was killed before it could do so."""
    note = folder / BARE_PID
    with suppress(OSError, ValueError):
        pid = int(note.read_text())
        if ENTRY_POINT in Path(f"/proc/{pid}/cmdline").read_text():  # else the number is another's
            os.killpg(pid, signal.SIGKILL)
    note.unlink(missing_ok=True)


def end_group(process: "subprocess.Popen[bytes]", patience_s: float = 8.0) -> None:
    """Ends a process that leads a group, and all that it has started there.

    The patience is less than what a part has that is being ended (`runner.GRACE_S`).
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def tail(path: Path, lines: int = 3) -> str:
    """The last words of a log."""
    text = path.read_text(errors="replace").strip().splitlines()
    return " / ".join(text[-lines:])[-600:]


@dataclass(frozen=True, slots=True)
class Platform:
    """A running platform."""

    plan: Plan
    data_dir: Path
    environment: Mapping[str, str]

    @property
    def target(self) -> Target:
        """Its endpoint."""
        return Target(str(self._state["url"]), MODEL, self.environment["PENSTOCK_API_KEY"])

    def engine(self) -> Target:
        """The model's engine itself, as gateways are told of it.

        Raises:
            LoadError: If there is not exactly one.
        """
        port = dict(self._state["ports"])["controller"]  # type: ignore[call-overload]
        token = (self.data_dir / "internal-token").read_text().strip()
        routes = httpx.get(
            f"http://127.0.0.1:{port}/internal/v1/routes?after=0", trust_env=False,
            headers={"Authorization": f"Bearer {token}"}, timeout=30,
        ).json()  # fmt: skip
        found = [e for m in routes["models"] if m["name"] == MODEL for e in m["endpoints"]]
        if len(found) != 1:
            raise LoadError(f"the model has {len(found)} engines, not one")
        return Target(str(found[0]["url"]), MODEL, str(found[0]["token"]))

    def deploy(self, document: Mapping[str, object]) -> None:
        """Deploys a manifest and waits.

        Raises:
            LoadError: If that fails.
        """
        file = self.data_dir / "manifest.json"  # which is YAML too
        file.write_text(json.dumps(document))
        self.penstock("deploy", "--yes", "-f", str(file))

    def state(self) -> str:
        """The model's state."""
        told = json.loads(self.penstock("get", "models", "--output", "json"))
        return next(str(m["state"]) for m in told["items"] if m["name"] == MODEL)

    def until(self, state: str, patience_s: float = 120.0) -> float:
        """Waits until the model is in a state; gives back how long that took, in seconds.

        Raises:
            LoadError: If it does not come to it.
        """
        began_s = time.monotonic()
        while (now := self.state()) != state:
            if time.monotonic() - began_s > patience_s:
                raise LoadError(f"the model is {now} after {patience_s:.0f} s, not {state}")
            time.sleep(0.2)
        return time.monotonic() - began_s

    def penstock(self, *arguments: str, fine: tuple[int, ...] = (0,)) -> str:
        """Runs a command; gives back its stdout.

        Raises:
            LoadError: If it ends with another code than these; with what it said last.
        """
        where = {"PENSTOCK_URL": str(self._state["url"])} if self._state else {}
        done = subprocess.run(
            [self.plan.python, "-P", "-m", PLATFORM, *arguments], capture_output=True, text=True,
            env={**self.environment, **where}, check=False,
        )  # fmt: skip
        sys.stderr.write(done.stderr)
        if done.returncode not in fine:
            said = " / ".join(done.stderr.strip().splitlines()[-2:])
            raise LoadError(f"penstock {arguments[0]} ended with {done.returncode}: {said}")
        return done.stdout

    @property
    def _state(self) -> dict[str, object]:
        try:
            return dict(json.loads((self.data_dir / "platform.json").read_text()))
        except OSError:
            return {}


def data_dir_of(plan: Plan, part: str) -> Path:
    """Where a part's platform keeps its data."""
    return plan.folder / f"platform-{part}"


def _share_compiled(plan: Plan, data_dir: Path) -> None:
    """Has all parts' platforms keep in one place what engines compile, which takes a minute."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    shared, link = plan.folder / "cache", data_dir / "cache"
    shared.mkdir(mode=0o700, exist_ok=True)
    if not link.exists():
        link.symlink_to(shared)


@contextmanager
def platform(plan: Plan, part: str) -> Iterator[tuple[Platform, float]]:
    """A platform of the part's own; gives it, and the seconds that it took to start.

    Raises:
        LoadError: If it does not start.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "RAY_"))}
    for name in ("PENSTOCK_PLAIN_SPAWN",):  # what the caller chose for engines stands
        if name in os.environ:
            clean[name] = os.environ[name]
    clean["PENSTOCK_START_TIMEOUT_S"] = f"{BARE_PATIENCE_S:.0f}"
    keys = {f"PENSTOCK_{who}_KEY": secrets.token_urlsafe(24) for who in ("ADMIN", "API")}
    running = Platform(plan, data_dir_of(plan, part), clean | keys)
    where = ("--data-dir", str(running.data_dir))
    _share_compiled(plan, running.data_dir)
    hosts = ("--hosts", "1") if plan.cpu else ("--gpus", "1")
    began_s = time.monotonic()
    try:
        running.penstock("up", "--detach", "--port", "0", "--no-deploy", *hosts, *where)
        yield running, time.monotonic() - began_s
    finally:
        running.penstock("down", *where)
