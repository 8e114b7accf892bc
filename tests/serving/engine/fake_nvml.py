"""A driver's library without a driver: NVML's functions, with devices that a test describes."""

import ctypes
from dataclasses import dataclass
from typing import Any

NOT_SUPPORTED, NOT_FOUND, GPU_IS_LOST = 3, 6, 15


@dataclass
class Device:
    """What a device tells; None: it does not."""

    uuid: str = "GPU-0"
    name: bytes = b"NVIDIA H200"
    used: int = 10 * 2**30
    total: int = 140 * 2**30
    busy: int | None = 97
    power_mw: int | None = 650_500
    clocks: tuple[int, int] = (1980, 3201)
    lost: bool = False


class FakeNvml:
    """Behaves as `libnvidia-ml.so.1`; handles are indices plus one."""

    def __init__(self, *devices: Device, init: int = 0) -> None:
        self.devices = devices
        self.init = init
        self.is_open = False

    def nvmlInit_v2(self) -> int:
        self.is_open = self.init == 0
        return self.init

    def nvmlShutdown(self) -> int:
        self.is_open = False
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> int:
        text.value = b"580.159.04"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count.contents.value = len(self.devices)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, device: Any) -> int:
        if index.value >= len(self.devices):
            return NOT_FOUND
        device.contents.value = index.value + 1
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, device: Any) -> int:
        for number, one in enumerate(self.devices, 1):
            if one.uuid.encode() == uuid:
                device.contents.value = number
                return 0
        return NOT_FOUND

    def nvmlDeviceGetName(self, device: Any, text: Any, size: Any) -> int:
        text.value = self._of(device).name
        return GPU_IS_LOST if self._of(device).lost else 0

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:
        one = self._of(device)
        memory.contents.used, memory.contents.total = one.used, one.total
        return 0

    def nvmlDeviceGetUtilizationRates(self, device: Any, rates: Any) -> int:
        busy = self._of(device).busy
        rates.contents.gpu = busy or 0
        return NOT_SUPPORTED if busy is None else 0

    def nvmlDeviceGetPowerUsage(self, device: Any, power: Any) -> int:
        drawn = self._of(device).power_mw
        power.contents.value = drawn or 0
        return NOT_SUPPORTED if drawn is None else 0

    def nvmlDeviceGetEnforcedPowerLimit(self, device: Any, limit: Any) -> int:
        limit.contents.value = 700_000
        return 0

    def nvmlDeviceGetClockInfo(self, device: Any, kind: Any, clock: Any) -> int:
        clock.contents.value = self._of(device).clocks[kind.value - 1]
        return 0

    def nvmlDeviceGetMaxClockInfo(self, device: Any, kind: Any, clock: Any) -> int:
        clock.contents.value = 1980
        return 0

    def _of(self, device: Any) -> Device:
        return self.devices[device.value - 1]
