"""Starts of a model that compiles: with an empty cache, and with the one that the first start left.

A launcher of its own; each start is measured to the engine's own probe. The last line is one JSON
object.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import bench_core

from models.sources import BUILTINS
from serving.engine.compile_cache import VARIABLE

CONCURRENCY = 4


def main() -> int:
    """Runs the starts and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warm", type=int, default=3, help="starts after the first one")
    parser.add_argument("--model", type=Path, default=BUILTINS["guide"], help="folder of weights")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-compile-") as name:
        folder = Path(name)
        os.environ[VARIABLE] = str(folder / "compiled")
        with bench_core.launcher("fork", folder) as path:
            starts = []
            for _ in range(1 + options.warm):
                start = bench_core.measure(
                    path, folder, options.model, CONCURRENCY, enforce_eager=False
                )
                sys.stdout.write(f"{start}\n")
                sys.stdout.flush()
                starts.append(start)
    line = {
        "bench": "compile",
        "cold_s": round(starts[0].probed_s, 2),
        "warm_s": round(statistics.median(start.probed_s for start in starts[1:]), 2),
        "load": round(os.getloadavg()[0], 1),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
