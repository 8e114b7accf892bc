"""The reference pages are what the code says."""

import subprocess
import sys
from pathlib import Path

from serving import metrics
from serving.metrics import Metric

ROOT = Path(__file__).parents[2]


def test_reference_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_declared_metric_is_listed() -> None:
    declared = [value for value in vars(metrics).values() if isinstance(value, Metric)]
    assert sorted(m.name for m in declared) == sorted(m.name for m in metrics.ALL)
    assert len({m.name for m in declared}) == len(declared)
