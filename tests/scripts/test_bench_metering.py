"""`make bench-metering` runs, small."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_metering.py"


def test_bench_metering_prints_what_metering_costs(tmp_path: Path) -> None:
    small = ["--requests", "1280", "--rows", "500", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *small], check=True, capture_output=True, text=True
    )
    for figure in ("us of CPU a request", "settled rows/s", "MiB from the first quarter", "p99"):
        assert figure in done.stdout
    assert [*tmp_path.iterdir()] == []
