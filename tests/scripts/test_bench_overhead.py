"""The overhead's figures, and once the whole way: a platform, its engine, both measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import bench_overhead as overhead

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_overhead.py"


def compared(estimate: float) -> dict[str, object]:
    interval = {"estimate": estimate, "low": estimate - 0.01, "high": estimate + 0.01}
    return {"a": 1.0, "b": 1.0, "ratio": interval, "added": interval}


def found(concurrency: int, value: float) -> object:
    names = ("output_rate", "ttft_p50", "ttft_p99")
    return overhead.Found(concurrency, dict.fromkeys(names, compared(value)), {"gateway": 1.0}, ())


def test_line_has_the_large_models_figures_outside_and_the_demos_inside() -> None:
    report = overhead.Report(10)
    report.found = {
        subject: [found(c, value) for c in (1, 32)]
        for subject, value in ((overhead.LARGE, 0.99), (overhead.DEMO, 0.5))
    }
    report.beside["rust_router"] = found(32, 0.95)
    line = report.line()
    assert line["bench"] == "overhead"
    assert line["throughput_ratio"] == {"c1": 0.99, "c32": 0.99}
    assert line["throughput_ratio_ci"]["c32"] == [0.98, 1.0]
    assert line["ttft_added_ms_p50"] == 990.0
    assert line["ttft_added_ms_p50_ci"]["c1"] == [980.0, 1000.0]
    assert line["demo"]["throughput_ratio"] == {"c1": 0.5, "c32": 0.5}
    assert line["demo"]["cpu_s"]["c1"] == {"gateway": 1.0}
    assert line["demo"]["beside"]["rust_router"]["throughput_ratio"] == {"c32": 0.95}
    assert overhead.table(report).row_count == 5


def test_line_is_complete_when_parts_fail() -> None:
    report = overhead.Report(10)
    with report.part("random-100m at 32"):
        raise overhead.BenchError("penstock bench ended with 2")
    line = json.loads(json.dumps(report.line()))
    assert line["problems"] == ["random-100m at 32: penstock bench ended with 2"]
    assert line["demo"] is None
    assert set(line["parts_s"]) == {"random-100m at 32"}
    assert overhead.table(report).row_count == 0


@pytest.mark.engine
@pytest.mark.bench
def test_overhead_of_the_built_in_model_is_measured() -> None:
    command = [sys.executable, SCRIPT, "--models", "demo", "--beside",
               "--concurrency", "2", "--pairs", "1"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["demo"]["throughput_ratio"]["c2"] > 0
    assert line["demo"]["cpu_s"]["c2"]["engine"] > 0
    assert "1 pairs are few" in line["demo"]["complaints"][0]
