"""The ruler of rulers: what it finds on a quiet machine, `python -m loadtests.truth` says."""

import pytest

from loadtests.truth import Entry, Measured, Plan, Told, errors, measure


def test_errors_are_the_distance_from_the_schedule() -> None:
    entry = Entry(
        request_id="a", arrived_s=10.0, due_s=[10.1, 10.2, 10.4], written_s=[10.101, 10.2, 10.403]
    )
    measured = Measured(id="a", ttft_s=0.102, gaps_s=[0.1, 0.203])
    found = errors("ours", 1, Told(cpu_s=0.003, measured=[measured]), [entry], took_s=0.5)
    assert found.ttft_p50_ms == pytest.approx(2.0)
    assert found.gap_p50_ms == pytest.approx(1.5)  # 0 and 3 ms
    assert found.tpot_p99_ms == pytest.approx(1.5)
    assert found.engine_late_p50_ms == pytest.approx(1.0)
    assert (found.chunks_per_s, found.cpu_us_per_chunk) == pytest.approx((6.0, 1000.0))


@pytest.mark.parametrize("request_id", ["a", "b"])
def test_request_that_is_missing_or_shorter_is_an_error(request_id: str) -> None:
    entry = Entry(request_id="a", arrived_s=0, due_s=[1, 2, 3], written_s=[1, 2, 3])
    told = Told(cpu_s=1, measured=[Measured(id=request_id, ttft_s=1, gaps_s=[1])])
    with pytest.raises(ValueError, match="not measured as it was answered"):
        errors("ours", 1, told, [entry], took_s=1)


def test_our_client_agrees_with_the_ledger() -> None:
    found = measure("ours", Plan(streams=4, tokens=6, rounds=2, gap_ms=5.0, realtime=False))
    # Far wider than what it finds on a quiet machine (under 1 ms), so that a busy one passes.
    assert found.gap_p50_ms < 100
    assert found.ttft_p50_ms < 500
