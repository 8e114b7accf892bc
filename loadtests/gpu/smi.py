"""What `nvidia-smi` tells of the first GPU; nothing on a machine without one."""

import shutil
import subprocess
import time
from dataclasses import dataclass

NAMES = ("gb200", "b200", "h200", "h100", "a100", "l40s")
PATIENCE_S = 20.0
"""With the driver, which takes seconds where nothing keeps it loaded."""
RETURN_S = 15.0
"""How long a GPU's memory may take to come back after a process is gone."""
TOLERANCE_MIB = 64
"""The driver keeps some of its own."""
TAKEN_MIB = 1024
"""With more in use before anything was started, somebody is there, also one whom we cannot see."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU."""

    name: str
    driver: str
    total_mib: int
    used_mib: int
    sm_mhz: int
    power_w: float

    @property
    def accelerator(self) -> str | None:
        """Its name in manifests; None: the platform does not know it."""
        words = self.name.lower().replace("-", " ").split()
        return next((name for name in NAMES if name in words), None)


def parse(line: str) -> Gpu:
    """One line of `--query-gpu`'s CSV.

    Raises:
        ValueError: If it is another's.
    """
    name, driver, total, used, sm, power = (part.strip() for part in line.split(","))
    watts = 0.0 if power.startswith("[") else float(power)  # [N/A]
    return Gpu(name, driver, int(total), int(used), int(sm), watts)


def gpu() -> Gpu | None:
    """The first GPU; None where there is none, or no driver that works."""
    told = _ask("--query-gpu=name,driver_version,memory.total,memory.used,clocks.sm,power.draw")
    try:
        return parse(told[0]) if told else None
    except ValueError:
        return None


def others() -> list[str]:
    """Processes that hold memory of it now: `pid, MiB`."""
    return _ask("--query-compute-apps=pid,used_memory")


def used_mib_after(before_mib: int | None) -> int | None:
    """Memory in use once what has ended has given it back, or after a while."""
    deadline_s = time.monotonic() + RETURN_S
    while (now := gpu()) is not None:
        back = before_mib is None or now.used_mib <= before_mib + TOLERANCE_MIB
        if back or time.monotonic() > deadline_s:
            return now.used_mib
        time.sleep(0.5)
    return None


def _ask(query: str) -> list[str]:
    done = _run(query, "--format=csv,noheader,nounits")
    return done.stdout.splitlines() if done is not None and done.returncode == 0 else []


def trouble() -> str:
    """Why there is no GPU, in the words of `nvidia-smi`: no driver, one that does not fit, ..."""
    if shutil.which("nvidia-smi") is None:
        return "there is no nvidia-smi"
    done = _run("--list-gpus")
    if done is None:
        return f"nvidia-smi does not answer within {PATIENCE_S:.0f} s"
    words = " ".join((done.stdout + " " + done.stderr).split())
    return f"nvidia-smi says: {words[:300] or 'nothing'}"


def _run(*arguments: str) -> "subprocess.CompletedProcess[str] | None":
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None
