"""Traces: two formats, broken lines named, scaling that keeps the shape."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from autoscaler.traces import TraceError, load_trace, make_trace, scale_rate

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
"""
MOONCAKE = """{"timestamp": 0, "input_length": 40160, "output_length": 6, "hash_ids": [0]}
{"timestamp": 1500, "input_length": 24, "output_length": 3}
"""


def test_azure_trace_is_read_plain_and_gzipped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(AZURE)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(AZURE.encode()))
    for name in ("a.csv", "a.csv.gz"):
        trace = load_trace(tmp_path / name)
        assert trace.arrival_s.tolist() == pytest.approx([0.0, 0.052])
        assert trace.prompt.tolist() == [4808, 3180]
        assert trace.output.tolist() == [10, 8]


def test_mooncake_trace_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(MOONCAKE)
    trace = load_trace(tmp_path / "m.jsonl")
    assert trace.arrival_s.tolist() == [0.0, 1.5]
    assert (trace.prompt.tolist(), trace.output.tolist()) == ([40160, 24], [6, 3])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (AZURE.splitlines()[0], "holds no request"),
        ("a,b\n", "line 1"),
        (AZURE + "2023-11-16 18:17:05,12\n", "line 4: 3 fields"),
        (AZURE + "yesterday,12,3\n", "line 4"),
        (AZURE + "2023-11-16 18:17:05,-12,3\n", "line 4"),
        (MOONCAKE + '{"timestamp": 1}\n', "line 3: input_length is missing"),
        (MOONCAKE + "{oops\n", "line 3"),
        (MOONCAKE + '{"timestamp": NaN, "input_length": 1, "output_length": 1}\n', "line 3"),
        (MOONCAKE + '{"timestamp": 1, "input_length": "7", "output_length": 1}\n', "line 3"),
        (MOONCAKE + '{"timestamp": 1, "input_length": 1.5, "output_length": 1}\n', "line 3"),
    ],
)
def test_broken_trace_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(TraceError, match=complaint):
        load_trace(tmp_path / "t")


def test_missing_or_cut_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot read"):
        load_trace(tmp_path / "absent")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(AZURE.encode())[:40])
    with pytest.raises(TraceError, match="cannot read"):
        load_trace(tmp_path / "cut.gz")


def test_scaling_keeps_shape_and_is_seeded() -> None:
    trace = make_trace("even", [(float(s), 10, 5) for s in range(2000)])
    many, again, other = (scale_rate(trace, 5.0, seed) for seed in (1, 1, 2))
    assert len(many) == pytest.approx(10_000, rel=0.05)
    assert np.array_equal(many.arrival_s, again.arrival_s)
    assert not np.array_equal(many.arrival_s[:100], other.arrival_s[:100])
    assert np.all(np.diff(many.arrival_s) >= 0)
    assert len(scale_rate(trace, 0.1, 1)) == pytest.approx(200, rel=0.25)
    assert scale_rate(trace, 1.0, 1) is trace


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_scale_is_refused(factor: float) -> None:
    with pytest.raises(TraceError):
        scale_rate(make_trace("one", [(0.0, 1, 1)]), factor, 1)


def test_scale_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(TraceError, match="nothing is left"):
        scale_rate(make_trace("one", [(0.0, 1, 1)]), 1e-9, 1)
