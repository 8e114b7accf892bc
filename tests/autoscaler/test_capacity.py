"""An engine's numbers, and what an SLO may not ask of them."""

from autoscaler.capacity import Capacity, below_floor

TRUE = Capacity(slots=128, prefill_tps=35_000.0, step_s=0.008, step_per_seq_s=0.000_12)


def test_slo_below_the_floor_is_warned_of_with_the_floor() -> None:
    assert below_floor(TRUE, ttft_s=2.0, tpot_s=0.1, cold_start_s=0.5) == []
    warnings = below_floor(TRUE, ttft_s=0.001, tpot_s=0.005, cold_start_s=15.0)
    assert [w.split()[0] for w in warnings] == ["ttft_s", "ttft_s", "tpot_s"]
    assert "0.0081 s" in warnings[2]
    assert "smaller chunk" in below_floor(TRUE, 2.0, 0.05, None)[0]
