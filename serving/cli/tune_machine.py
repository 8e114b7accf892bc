"""The machine that `penstock tune` measures on: its accelerators, and a launcher of its own."""

import fcntl
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from models.errors import ConflictError, UnavailableError
from models.hardware import GIB, HARDWARE
from models.profile_search import cpu_name
from serving.cli import probes
from serving.cli.parts import Part, PartSpec
from serving.engine.nvml import Nvml, NvmlError, Reading, start_nvml

TAKEN_GIB = 1.0
"""A device of which more is taken is in use by somebody."""
LAUNCHER_TIMEOUT_S = 300.0
"""vLLM's imports take 7 s; on a machine whose disk is cold a minute and more."""
LOCK, LEFT, RUNTIME = "lock", "runtime", "penstock-tune-"
"""Of a run's folder: who holds it, and where its launcher's folder is; what that one is called."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What engines of a tuning run get."""

    accelerator: str
    hardware: str
    """Its own name: of the processors, or of the devices."""
    gpus: tuple[str, ...] = ()


def read_gpus(
    tell: Callable[[str], object], start: Callable[[], Nvml | None] = start_nvml
) -> list[Reading]:
    """The machine's NVIDIA devices; none where no driver answers.

    Args:
        tell: Gets a warning where there is a driver, and it does not serve.
        start: Opens it.
    """
    try:
        driver = start()
        if driver is None:
            return []
        try:
            return [driver.read(str(number)) for number in range(driver.count())]
        finally:
            driver.close()
    except NvmlError as exc:
        tell(f"warning: NVIDIA's driver does not serve, so that no GPU is used: {exc}")
        return []


def accelerator_of(gpus: Sequence[Reading]) -> str:
    """The kind of accelerator that a machine has, by its devices' names; `cpu` without any."""
    if not gpus:
        return "cpu"
    # Longest first: "GB200" contains "B200".
    for known in sorted(HARDWARE, key=lambda one: -len(one.name)):
        if known.name in gpus[0].name.lower():
            return known.name
    return "cpu"


def machine_for(accelerator: str, count: int, gpus: Sequence[Reading]) -> Machine:
    """Devices of a kind that nobody uses.

    Raises:
        UnavailableError: If there are none, or too few; says what there is.
    """
    if accelerator == "cpu":
        return Machine("cpu", cpu_name())
    if not gpus:
        raise UnavailableError(
            f"this machine has no {accelerator}: no NVIDIA driver answers",
            hint="`nvidia-smi` says what is wrong; --accelerator cpu tunes on the processors",
        )
    alike = [gpu for gpu in gpus if accelerator_of([gpu]) == accelerator]
    if len(alike) < count:
        names = ", ".join(sorted({gpu.name for gpu in gpus}))
        raise UnavailableError(
            f"{count} x {accelerator} are needed; this machine has {len(gpus)} x {names}"
        )
    free = [gpu for gpu in alike if gpu.memory_used_bytes <= TAKEN_GIB * GIB]
    if len(free) < count:
        taken = next(gpu for gpu in alike if gpu not in free)
        raise UnavailableError(
            f"{len(free)} of {len(alike)} x {accelerator} are free, and {count} are needed: on GPU "
            f"{taken.gpu} {taken.memory_used_bytes / GIB:.1f} GiB are taken",
            hint="`nvidia-smi` lists who uses them; figures beside another load would be worthless",
        )
    chosen = free[:count]
    return Machine(accelerator, chosen[0].name, tuple(gpu.gpu for gpu in chosen))


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds a run's folder, which is made if it is not there.

    Raises:
        ConflictError: If another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"another tuning run uses {folder}") from None
        yield


def clear_up(runs: Path) -> None:
    """Removes what runs that were killed have left outside their folders; trials stay."""
    for lock in runs.glob(f"*/{LOCK}"):
        with suppress(ConflictError, OSError), only_one(lock.parent):
            _forget_runtime(lock.parent)


def _new_runtime(folder: Path) -> Path:
    """A folder with a name short enough for sockets; the run's own folder says where it is."""
    _forget_runtime(folder)
    runtime = Path(tempfile.gettempdir(), f"{RUNTIME}{secrets.token_hex(6)}")
    (folder / LEFT).write_text(str(runtime))  # first, so that none is made that nobody knows of
    runtime.mkdir(mode=0o700)
    return runtime


def _forget_runtime(folder: Path) -> None:
    note = folder / LEFT
    if note.exists():
        runtime = Path(note.read_text().strip())
        if runtime.name.startswith(RUNTIME):
            shutil.rmtree(runtime, ignore_errors=True)
        note.unlink()


@contextmanager
def launcher(folder: Path) -> Iterator[Path]:
    """A launcher of this run's own; gives its socket, and ends it, and its engines with it.

    It also ends when this process does, however that comes.

    Args:
        folder: Of this run, which holds its lock (`only_one`).

    Raises:
        UnavailableError: If it does not start; its log says why.
    """
    runtime = _new_runtime(folder)
    socket, log = runtime / "launcher.sock", folder / "launcher.log"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    part = Part(
        PartSpec(
            name="launcher",
            command=(sys.executable, "-m", "serving.engine.launcher"),
            environment=kept | {"PENSTOCK_LAUNCHER_SOCKET": str(socket), "OMP_NUM_THREADS": "1"},
            folder=runtime,
            log_path=log,
            is_ready=lambda: probes.accepts(socket),
        )
    )
    part.start(time.monotonic())
    try:
        deadline_s = time.monotonic() + LAUNCHER_TIMEOUT_S
        while not part.spec.is_ready():
            ended = part.process is None or part.process.poll() is not None
            if ended or time.monotonic() > deadline_s:
                last = part.said()[-1:]
                raise UnavailableError(
                    f"the launcher does not start: {last[0] if last else 'it says nothing'}",
                    hint=f"see {log}",
                )
            time.sleep(0.1)
        yield socket
    finally:
        part.stop()
        part.wait()
        _forget_runtime(folder)
