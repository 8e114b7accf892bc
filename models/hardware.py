"""The accelerators that the planner knows, what they cost and how fast storage is; with sources.

Rates are peaks of dense arithmetic, as the vendor states them: the planner's efficiencies
(`models.calibration`) say how much of a peak is reached.
"""

from dataclasses import dataclass
from enum import StrEnum

from models.errors import BadRequestError
from models.precision import Precision

GIB = 2**30
TERA = 1e12


class UnknownHardwareError(BadRequestError):
    """A name that the hardware table does not have."""

    code = "unknown_hardware"


class CapacityClass(StrEnum):
    """How capacity is paid for."""

    ON_DEMAND = "on-demand"
    RESERVED = "reserved"
    SPOT = "spot"


PRICE_SHARE = {
    CapacityClass.ON_DEMAND: 1.0,
    CapacityClass.RESERVED: 0.6,
    CapacityClass.SPOT: 0.5,
}
"""Price as a share of the on-demand price: assumptions in the middle of what clouds offer."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One kind of accelerator, or the CPU of a development machine."""

    name: str
    title: str
    memory_gib: float
    """Memory of one device as its driver reports it, in GiB."""
    bandwidth_tb_s: float
    """Memory bandwidth of one device in 10^12 bytes/s."""
    bf16_tflops: float
    """Dense peak at 16 bits in 10^12 operations/s."""
    fp8_tflops: float | None
    """Dense peak at 8 bits; none: 8-bit weights are computed with at 16 bits."""
    fp4_tflops: float | None
    """Dense peak at 4 bits; none: 4-bit weights are computed with at 16 bits."""
    link_gb_s: float
    """Bandwidth to the peers, both directions together, in 10^9 bytes/s."""
    host_gb_s: float
    """Bandwidth from the host's memory to one device in 10^9 bytes/s."""
    gpus_a_host: int
    """Devices of one host."""
    domain: int
    """Devices that reach each other over the fast link: the limit of tensor parallelism."""
    gpu_hour_usd: float
    """On-demand list price of one device for an hour; what one pays differs, so give your own."""
    source: str
    """Where the numbers are from."""

    @property
    def is_cpu(self) -> bool:
        """Whether this is no accelerator."""
        return self.name == "cpu"

    def peak_flops(self, precision: Precision) -> float:
        """Operations/s of one device for matrices of weights in this precision."""
        peak = self.bf16_tflops
        if precision is Precision.FP8 and self.fp8_tflops:
            peak = self.fp8_tflops
        elif precision is Precision.NVFP4 and self.fp4_tflops:
            peak = self.fp4_tflops
        elif precision is Precision.MXFP4 and self.fp4_tflops and self.fp8_tflops:
            peak = self.fp8_tflops  # 4-bit weights meet 8-bit activations
        return peak * TERA


_PRICE = "price: CoreWeave list of Feb 2026 (quoted by kaelresearch.com)"

HARDWARE = (
    Hardware(
        "h200", "NVIDIA H200 SXM 141 GB", 143771 / 1024, 4.8, 989.5, 1979, None, 900, 50, 8, 8,
        6.31, f"NVIDIA H200 datasheet; memory: nvidia-smi 143771 MiB; {_PRICE}",
    ),
    Hardware(
        "gb200", "NVIDIA GB200 186 GB (one GPU)", 189471 / 1024, 8.0, 2500, 5000, 10000, 1800, 200,
        4, 72, 10.50, f"NVIDIA GB200 NVL72 datasheet / 72; memory: nvidia-smi 189471 MiB; {_PRICE}",
    ),
    Hardware(
        "b200", "NVIDIA B200 180 GB", 183359 / 1024, 8.0, 2250, 4500, 9000, 1800, 50, 8, 8,
        8.60, f"NVIDIA DGX B200 datasheet / 8; memory: nvidia-smi 183359 MiB; {_PRICE}",
    ),
    Hardware(
        "h100", "NVIDIA H100 SXM 80 GB", 81559 / 1024, 3.35, 989.5, 1979, None, 900, 50, 8, 8,
        6.155, f"NVIDIA H100 datasheet; memory: nvidia-smi 81559 MiB; {_PRICE}",
    ),
    Hardware(
        "a100", "NVIDIA A100 SXM 80 GB", 81920 / 1024, 2.039, 312, None, None, 600, 25, 8, 8,
        2.70, f"NVIDIA A100 datasheet; memory: nvidia-smi 81920 MiB; {_PRICE}",
    ),
    Hardware(
        "l40s", "NVIDIA L40S 48 GB", 46068 / 1024, 0.864, 362, 733, None, 64, 25, 8, 8,
        2.25, f"NVIDIA L40S datasheet; memory: nvidia-smi 46068 MiB; {_PRICE}",
    ),
    Hardware(
        "cpu", "CPU of a development machine", 24.0, 0.02, 0.1, None, None, 1, 20, 1, 1,
        0.10, "assumed: 2 cores, 24 GiB, one memory channel; price assumed",
    ),
)  # fmt: skip
"""All hardware, in the order of the documentation."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where weights are read from when an engine starts."""

    name: str
    gb_s: float
    """Read rate of one host in 10^9 bytes/s; shared by its devices."""
    source: str


STORAGE = (
    Storage("object store", 1.2, "assumed: a 10 Gbit/s connection, filled"),
    Storage("network file system", 3.0, "assumed: a 25 Gbit/s connection, filled"),
    Storage("local NVMe", 6.0, "assumed: one PCIe 4.0 x4 drive, sequential"),
    Storage("host memory", 50.0, "assumed: page cache, several readers"),
)
"""Kinds of storage, slowest first."""


def device_named(driver: str) -> Hardware | None:
    """The hardware of a device by its driver's name for it, as `NVIDIA H200`; None: not known."""
    words = driver.lower().replace("-", " ").split()
    return next((known for known in HARDWARE if known.name in words), None)


def hardware_named(name: str) -> Hardware:
    """The hardware of a name, in any case.

    Raises:
        UnknownHardwareError: If the table has none.
    """
    for known in HARDWARE:
        if known.name == name.lower():
            return known
    names = ", ".join(known.name for known in HARDWARE)
    raise UnknownHardwareError(
        f"unknown hardware {name!r}", param="hardware", hint=f"known: {names}"
    )
