import gzip
from pathlib import Path

import pytest

import loadtests
from loadtests.recordings import (
    Row,
    Scaling,
    Trace,
    TraceError,
    implied_hit_rate,
    load,
    parse,
    scale,
)

TRACES = Path(loadtests.__file__).parent / "traces"

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:03.9799600,4808,10
2024-05-10 00:00:00.009930+00:00,x,1
half a line
"""
MOONCAKE = """{"timestamp": 500, "input_length": 600, "output_length": 6, "hash_ids": [0, 1]}
{"timestamp": 1500, "input_length": 513, "output_length": 4, "hash_ids": [0, 2]}
{"timestamp": 1700, "input_length":
"""


def test_azure_rows_are_sorted_and_count_from_the_first() -> None:
    trace = parse(AZURE.splitlines())
    assert [(row.prompt_tokens, row.output_tokens) for row in trace.rows] == [(4808, 10), (3180, 8)]
    assert [row.at_s for row in trace.rows] == pytest.approx([0.0, 0.052])
    assert trace.broken == 2


def test_mooncake_rows_have_their_blocks() -> None:
    trace = parse(MOONCAKE.splitlines())
    assert trace.rows == (Row(0.0, 600, 6, (0, 1)), Row(1.0, 513, 4, (0, 2)))
    assert (trace.block_tokens, trace.broken) == (512, 1)


def test_our_rows_are_read() -> None:
    trace = parse(['{"at_s": 1.5, "prompt_tokens": 3, "output_tokens": 2}'])
    assert trace.rows == (Row(0.0, 3, 2),)


@pytest.mark.parametrize("text", ["", "TIMESTAMP,ContextTokens,GeneratedTokens", "nonsense", "{}"])
def test_trace_without_requests_is_refused(text: str) -> None:
    with pytest.raises(TraceError, match="no request"):
        parse(text.splitlines())


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b"TIMESTAMP")[:-4])
    for path in (broken, tmp_path / "missing", tmp_path):
        with pytest.raises(TraceError, match="cannot read"):
            load(path)


@pytest.mark.parametrize(
    ("name", "requests", "duration_s"),
    [
        ("AzureLLMInferenceTrace_code.csv.gz", 8819, 3436),
        ("AzureLLMInferenceTrace_conv.csv.gz", 19366, 3502),
        ("mooncake_synthetic.jsonl.gz", 3993, 1022),
    ],
)
def test_shipped_trace_is_whole(name: str, requests: int, duration_s: float) -> None:
    trace = load(TRACES / name)
    assert (len(trace.rows), trace.broken) == (requests, 0)
    assert trace.duration_s == pytest.approx(duration_s, abs=1)


def test_scaling_takes_a_part_faster_and_shorter() -> None:
    rows = tuple(Row(float(at_s), 100 * (at_s + 1), 10, tuple(range(8))) for at_s in range(6))
    scaled = scale(
        Trace(rows, block_tokens=64),
        Scaling(start_s=2, duration_s=3, speed=2, length=0.25, max_prompt_tokens=120),
    )
    assert [row.at_s for row in scaled.rows] == [0.0, 0.5, 1.0]
    assert [row.prompt_tokens for row in scaled.rows] == [75, 100, 120]
    assert [row.output_tokens for row in scaled.rows] == [2, 2, 2]
    assert scaled.block_tokens == 16
    # 75 tokens are 5 blocks of 16, 120 are 8.
    assert [len(row.block_ids) for row in scaled.rows] == [5, 7, 8]


def test_jitter_moves_each_arrival_within_its_bound_and_keeps_the_order() -> None:
    rows = tuple(Row(float(at_s // 10), 1, 1) for at_s in range(100))
    scaled = scale(Trace(rows), Scaling(jitter_s=1.0, seed=3))
    times = [row.at_s for row in scaled.rows]
    assert times == sorted(times)
    assert len(set(times)) == 100
    assert all(int(at_s) == index // 10 for index, at_s in enumerate(times))


def test_share_keeps_about_that_many_by_the_seed() -> None:
    rows = tuple(Row(float(at_s), 1, 1) for at_s in range(1000))
    kept = scale(Trace(rows), Scaling(share=0.3, seed=1)).rows
    assert 250 < len(kept) < 350
    assert kept == scale(Trace(rows), Scaling(share=0.3, seed=1)).rows


def test_scaling_to_nothing_is_refused() -> None:
    trace = Trace((Row(0.0, 1, 1),))
    with pytest.raises(TraceError):
        scale(trace, Scaling(start_s=5))
    with pytest.raises(ValueError, match="positive"):
        scale(trace, Scaling(speed=0))


def test_hit_rate_counts_whole_shared_blocks() -> None:
    rows = [
        Row(0, 40, 1, (1, 2, 3)),  # two whole blocks of 16, nothing known yet
        Row(1, 40, 1, (1, 2, 9)),  # both known: 32
        Row(2, 32, 1, (1, 2)),  # the second would leave nothing to compute: 16
        Row(3, 40, 1, (7, 2, 3)),  # another beginning: nothing
    ]
    assert implied_hit_rate(rows, 16) == pytest.approx(48 / 152)
    assert implied_hit_rate([], 16) == 0.0
