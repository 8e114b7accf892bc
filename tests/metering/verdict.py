"""How the metering's long runs end: what was not true, where the logs are, and the exit code."""

import shutil
from collections.abc import Sequence
from pathlib import Path


def tell(
    faults: Sequence[str], folder: Path, *, keep: bool = False, shown: int | None = None
) -> int:
    """Prints what a run found, `shown` of it at most, and removes its folder where that is of no
    use; 1 for faults."""
    for fault in faults[:shown]:
        print(f"  NOT TRUE: {fault}", flush=True)
    if keep or faults:
        print(f"logs are in {folder}")
    else:
        shutil.rmtree(folder)
    print("all true" if not faults else f"{len(faults)} things are not true")
    return 1 if faults else 0
