"""Each rival against its published formula, at numbers that can be checked by hand."""

from autoscaler.clairvoyant import Clairvoyant
from autoscaler.rivals import Hpa, HpaKnobs, Kpa, KpaKnobs, RayServe, RayServeKnobs, Scaler
from autoscaler.snapshot import Snapshot
from autoscaler.traces import make_trace


def drive(
    scaler: Scaler, seconds: float, in_flight: int, from_s: float = 0.0, ready: int = 1
) -> list[int]:
    """The targets while the load stays as it is."""
    targets, at_s = [], from_s
    while at_s < from_s + seconds:
        targets.append(scaler.target(Snapshot(at_s, ready, 0, 0, in_flight)))
        at_s += scaler.interval_s
    return targets


def test_ray_serve_acts_after_its_delays() -> None:
    scaler = RayServe(RayServeKnobs(10.0, 30.0, 10.0, 30.0, 600.0), most=64)
    up = drive(scaler, 60, in_flight=45)
    # ceil(45 / 10), once the wish has stood for 30 s.
    assert up[int(29 / 0.5)] == 1
    assert up[int(31 / 0.5)] == 5
    down = drive(scaler, 700, in_flight=0, from_s=60)
    assert down[int(590 / 0.5)] == 5
    # The wish began with the first push of the mean that shows it: 60 + 10 s, then 600 s.
    assert down[-1] == 1


def test_ray_serve_starts_its_delay_anew_when_the_wish_turns() -> None:
    scaler = RayServe(RayServeKnobs(10.0, 1.0, 0.5, 30.0, 600.0), most=64)
    drive(scaler, 20, in_flight=45)
    drive(scaler, 5, in_flight=5, from_s=20)
    assert drive(scaler, 25, in_flight=45, from_s=25)[-1] == 1


def test_kpa_averages_over_its_stable_window() -> None:
    scaler = Kpa(KpaKnobs(10.0, 60.0, 0.1, 100.0), most=64)
    drive(scaler, 60, in_flight=10, ready=1)
    # Half of the window at 50 and half at 10: mean 30.
    assert drive(scaler, 30, in_flight=50, from_s=60, ready=1)[-1] == 3


def test_kpa_panics_at_twice_the_load_and_does_not_shrink_then() -> None:
    scaler = Kpa(KpaKnobs(10.0, 60.0, 0.1, 2.0), most=64)
    drive(scaler, 60, in_flight=10)
    assert max(drive(scaler, 8, in_flight=200, from_s=60)) == 20
    assert set(drive(scaler, 50, in_flight=0, from_s=68, ready=20)) == {20}


def test_kpa_halves_at_most_in_one_step() -> None:
    scaler = Kpa(KpaKnobs(10.0, 6.0, 0.5, 100.0), most=64)
    assert drive(scaler, 2, in_flight=0, ready=20)[0] == 10


def test_hpa_tolerates_a_tenth_and_holds_the_highest_of_its_window() -> None:
    scaler = Hpa(HpaKnobs(10.0, True, 15.0, 300.0, 0.1), most=64)
    assert drive(scaler, 15, in_flight=10.5) == [1]  # type: ignore[arg-type]
    assert drive(scaler, 15, in_flight=42, from_s=15) == [5]
    fell = drive(scaler, 600, in_flight=10, from_s=30)
    assert fell[int(270 / 15)] == 5
    assert fell[-1] == 1


def test_hpa_grows_by_four_or_double_a_step() -> None:
    scaler = Hpa(HpaKnobs(1.0, True), most=64)
    assert drive(scaler, 60, in_flight=60) == [5, 10, 20, 40]


def test_hpa_on_waiting_requests_is_blind_to_running_ones() -> None:
    scaler = Hpa(HpaKnobs(1.0, False), most=64)
    assert set(drive(scaler, 600, in_flight=500)) == {1}


def test_clairvoyant_is_ready_when_the_burst_comes_and_keeps_over_short_gaps() -> None:
    burst = [(100.0 + i / 100, 35_000, 1) for i in range(10)]
    later = [(130.0 + i / 100, 35_000, 1) for i in range(10)]
    trace = make_trace("bursts", [(0.0, 1, 1), *burst, *later])
    scaler = Clairvoyant(trace, 35_000.0, 0.0002, 5.0, drain_s=1.0, busy=1.0, keep_s=40.0, most=64)
    at = {s: scaler.target(Snapshot(float(s), 1, 0, 0, 0)) for s in (80, 96, 100, 120, 129, 200)}
    assert at[80] < at[96] == at[100] == at[120] == at[129]
    assert at[100] == 8
    assert at[200] == 0
