"""`python -m loadtests.roofline_machine`: what this machine's memory and arithmetic really give.

Prints one JSON line. On a CPU one thread, as an engine has it (OMP_NUM_THREADS=1): the triad of
STREAM (McCalpin, 1995) by numpy, and a product of matrices by torch in bf16, or by numpy in 32 bits
where there is no torch. With `--gpu` a copy on the device and a product in bf16, by torch.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MIB = 2**20
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates, the best of some tries each, and how they were taken."""

    device: str
    bandwidth_gb_s: float
    bandwidth_how: str
    matmul_tflops: float
    matmul_how: str


def best_s(do: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """The shortest of some tries; the first one, which warms up, does not count."""
    do()
    took: list[float] = []
    for _ in range(REPEATS):
        began_s = clock()
        do()
        took.append(clock() - began_s)
    return min(took)


def cpu(mib: int, size: int) -> Machine:
    """Measures one thread: arrays of so many MiB each, matrices of so many rows."""
    values = mib * MIB // 8
    a, b, c = (np.full(values, fill) for fill in (0.0, 1.0, 2.0))

    def triad() -> None:
        # In numpy two passes: read c, write a; read a and b, write a.
        np.multiply(c, 3.0, out=a)
        np.add(a, b, out=a)

    bandwidth = 5 * 8 * values / best_s(triad) / 1e9
    product, how = _cpu_product(size)
    return Machine(
        "cpu",
        bandwidth,
        f"measured: numpy triad, one thread, 3 arrays of {mib} MiB, 40 bytes moved a value",
        2 * size**3 / best_s(product) / 1e12,
        f"measured: {how}, {size} rows",
    )


def _cpu_product(size: int) -> tuple[Callable[[], object], str]:
    try:
        import torch
    except ImportError:
        left, right = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
        return lambda: left @ right, "numpy product in 32 bits"
    torch.set_num_threads(1)
    one = torch.ones(size, size, dtype=torch.bfloat16)
    return lambda: one @ one, "torch product in bf16, one thread"


def gpu(mib: int, size: int) -> Machine:
    """Measures the first GPU that this process sees.

    Raises:
        RuntimeError: If torch sees none.
    """
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError(f"torch sees no GPU: {_why_not(torch.cuda.init)}")
    source = torch.ones(mib * MIB, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    # Ones and zeros draw less power than numbers do, and would run faster.
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device="cuda") for _ in "ab")

    def done(do: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(10):
                do()
            torch.cuda.synchronize()

        return run

    copied_s = best_s(done(lambda: target.copy_(source))) / 10
    product_s = best_s(done(lambda: torch.matmul(left, right))) / 10
    return Machine(
        torch.cuda.get_device_name(),
        2 * mib * MIB / copied_s / 1e9,
        f"measured: torch copy on the device, {mib} MiB, read and written",
        2 * size**3 / product_s / 1e12,
        f"measured: torch product in bf16, {size} rows",
    )


def _why_not(init: Callable[[], None]) -> str:
    """What CUDA says when it is asked to start: no driver, one too old for this torch, ..."""
    try:
        init()
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split())
    return "it does not say why"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser("roofline_machine", description=__doc__)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--mib", type=int, help="default: 128 on a CPU, 4096 on a GPU")
    parser.add_argument("--size", type=int, help="default: 1024 on a CPU, 8192 on a GPU")
    parsed = parser.parse_args(argv)
    try:
        if parsed.gpu:
            found = gpu(parsed.mib or 4096, parsed.size or 8192)
        else:
            found = cpu(parsed.mib or 128, parsed.size or 1024)
    except (RuntimeError, ImportError, MemoryError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
