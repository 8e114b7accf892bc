"""What NVIDIA's driver tells of its accelerators, through NVML; where there is no driver, nothing.

Speaks to `libnvidia-ml.so.1` itself: it comes with the driver, so nothing has to be installed, and
no CUDA context is made. Signatures as in NVML's API reference. What a device does not tell (a slice
of MIG has no utilisation) is None.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import UnavailableError
from serving import logs
from serving.protocol import GpuReport

LIBRARY = "libnvidia-ml.so.1"
SUCCESS = 0
TEXT_BYTES = 96
"""NVML's longest texts: names of devices."""
SM_CLOCK, MEMORY_CLOCK = 1, 2
"""NVML's numbers of the kinds of clocks."""

INTERVAL_S = 1.0
STALE_S = 10.0
"""A driver that hangs is not quoted after this time."""

_log = logs.get_logger("penstock.host")


class NvmlError(UnavailableError):
    """The driver cannot tell."""


class _Utilisation(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """One device at one moment."""

    gpu: str
    """Its index on the node, as `nvidia-smi` counts; as the caller named it."""
    name: str
    memory_used_bytes: int
    memory_total_bytes: int
    utilisation: float | None = None
    """Share of the last moments in which a kernel ran, 0 to 1."""
    power_w: float | None = None
    power_limit_w: float | None = None
    sm_mhz: int | None = None
    sm_max_mhz: int | None = None
    memory_mhz: int | None = None


class Nvml:
    """The driver's library, opened.

    Args:
        library: `libnvidia-ml.so.1`, or what behaves as it does.

    Raises:
        NvmlError: If the driver does not answer.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._call("nvmlInit_v2")

    def close(self) -> None:
        """Lets go of the driver."""
        self._library.nvmlShutdown()

    def driver(self) -> str:
        """The driver's version."""
        text = ctypes.create_string_buffer(TEXT_BYTES)
        self._call("nvmlSystemGetDriverVersion", text, ctypes.c_uint(TEXT_BYTES))
        return text.value.decode("ascii", "replace")

    def count(self) -> int:
        """How many devices the node has."""
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.pointer(count))
        return count.value

    def read(self, gpu: str) -> Reading:
        """How a device stands.

        Args:
            gpu: Its index, or its UUID as `GPU-...`.

        Raises:
            NvmlError: If the driver does not know it, or has lost it.
        """
        device = self._device(gpu)
        name = ctypes.create_string_buffer(TEXT_BYTES)
        self._call("nvmlDeviceGetName", device, name, ctypes.c_uint(TEXT_BYTES))
        memory = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", device, ctypes.pointer(memory))
        utilisation = _Utilisation()
        busy = self._tells("nvmlDeviceGetUtilizationRates", device, ctypes.pointer(utilisation))
        power_mw = self._number("nvmlDeviceGetPowerUsage", device)
        limit_mw = self._number("nvmlDeviceGetEnforcedPowerLimit", device)
        return Reading(
            gpu=gpu,
            name=name.value.decode("ascii", "replace"),
            memory_used_bytes=memory.used,
            memory_total_bytes=memory.total,
            utilisation=utilisation.gpu / 100 if busy else None,
            power_w=None if power_mw is None else power_mw / 1000,
            power_limit_w=None if limit_mw is None else limit_mw / 1000,
            sm_mhz=self._number("nvmlDeviceGetClockInfo", device, SM_CLOCK),
            sm_max_mhz=self._number("nvmlDeviceGetMaxClockInfo", device, SM_CLOCK),
            memory_mhz=self._number("nvmlDeviceGetClockInfo", device, MEMORY_CLOCK),
        )

    def _device(self, gpu: str) -> ctypes.c_void_p:
        device = ctypes.c_void_p()
        if gpu.isdecimal():
            self._call(
                "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(int(gpu)), ctypes.pointer(device)
            )
        else:
            self._call("nvmlDeviceGetHandleByUUID", gpu.encode(), ctypes.pointer(device))
        return device

    def _number(self, function: str, device: ctypes.c_void_p, *kind: int) -> int | None:
        number = ctypes.c_uint()
        chosen = (ctypes.c_int(one) for one in kind)
        told = self._tells(function, device, *chosen, ctypes.pointer(number))
        return number.value if told else None

    def _tells(self, function: str, *arguments: Any) -> bool:
        return int(getattr(self._library, function)(*arguments)) == SUCCESS

    def _call(self, function: str, *arguments: Any) -> None:
        code = int(getattr(self._library, function)(*arguments))
        if code != SUCCESS:
            raise NvmlError(
                f"NVML's {function} failed with code {code}",
                hint="nvidia-smi says what is wrong with the driver",
            )


def start_nvml(library: str = LIBRARY) -> Nvml | None:
    """The driver's library; None on a machine without one.

    Raises:
        NvmlError: If there is one, and it does not work.
    """
    try:
        found = ctypes.CDLL(library)
    except OSError:
        return None
    return Nvml(found)


def open_nvml(library: str = LIBRARY) -> Nvml | None:
    """The driver's library; None on a machine without a driver that works."""
    try:
        return start_nvml(library)
    except NvmlError:
        return None


class GpuWatch:
    """Reads some devices each second in a thread of its own: a driver that hangs stops no host.

    Args:
        nvml: The driver, or None: then nothing is read.
        gpus: The devices.
        clock: Monotonic seconds.
    """

    def __init__(
        self, nvml: Nvml | None, gpus: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._nvml = nvml if gpus else None
        self._gpus = tuple(gpus)
        self._clock = clock
        self._last: tuple[float, tuple[Reading, ...]] | None = None
        self._complained = False
        if self._nvml is not None:
            threading.Thread(target=self._read_forever, name="nvml", daemon=True).start()

    def readings(self) -> tuple[Reading, ...]:
        """How the devices stand; nothing of a driver that has not answered for a while."""
        last = self._last
        if last is None or self._clock() - last[0] > STALE_S:
            return ()
        return last[1]

    def reports(self) -> tuple[GpuReport, ...]:
        """The same, as a host tells its controller."""
        return tuple(
            GpuReport(
                gpu=one.gpu,
                memory_used_bytes=one.memory_used_bytes,
                memory_total_bytes=one.memory_total_bytes,
                utilisation=one.utilisation,
                power_w=one.power_w,
            )
            for one in self.readings()
        )

    def read(self) -> None:
        """Asks the driver now."""
        if self._nvml is None:
            return
        found = []
        for gpu in self._gpus:
            try:
                found.append(self._nvml.read(gpu))
            except NvmlError as exc:  # of one device: the others are told all the same
                if not self._complained:
                    _log.warning("gpu_does_not_tell", gpu=gpu, error=str(exc))
                    self._complained = True
        self._last = (self._clock(), tuple(found))

    def _read_forever(self) -> None:
        while True:
            self.read()
            time.sleep(INTERVAL_S)
