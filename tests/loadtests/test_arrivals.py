import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import RateCurve, constant, day, open_loop, ramp, spike, steps


def cv_of_gaps(times: list[float]) -> float:
    gaps = [b - a for a, b in pairwise(times)]
    return statistics.stdev(gaps) / statistics.mean(gaps)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_rate_and_the_burstiness(burstiness: float) -> None:
    times = list(open_loop(constant(50, 1000), burstiness=burstiness, seed=1))
    # The count of a renewal process has the variance n / shape.
    assert len(times) == pytest.approx(50_000, rel=4 / (50_000 * burstiness) ** 0.5)
    # A gamma distribution of shape k has the coefficient of variation 1 / sqrt(k).
    assert cv_of_gaps(times) == pytest.approx(burstiness**-0.5, rel=0.03)


def test_endless_burstiness_is_a_metronome() -> None:
    times = list(open_loop(constant(10, 1), burstiness=float("inf")))
    assert times == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


def test_times_follow_from_the_seed() -> None:
    curve = ramp(1, 20, 60)
    assert list(open_loop(curve, seed=5)) == list(open_loop(curve, seed=5))
    assert list(open_loop(curve, seed=5)) != list(open_loop(curve, seed=6))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (constant(8, 100), 800),
        (ramp(0, 10, 100), 500),
        (ramp(10, 0, 100), 500),
        (steps([5, 0, 10], 90), 450),
        (spike(1, 11, 100), 200),  # 100 + 10 more for a tenth of the time
        (day(100, 240), 14_950),  # mean share 0.623
    ],
)
def test_shapes_have_the_arrivals_that_the_area_says(curve: RateCurve, expected: float) -> None:
    assert curve.expected == pytest.approx(expected, rel=0.01)
    counts = [len(list(open_loop(curve, seed=seed))) for seed in range(20)]
    # The mean of 20 Poisson counts, four standard deviations wide.
    assert statistics.mean(counts) == pytest.approx(expected, abs=4 * (expected / 20) ** 0.5 + 1)


def test_ramp_from_nothing_is_exact_in_operational_time() -> None:
    # A metronome on a rate of t: the k-th arrival is where t^2 / 2 = k.
    times = list(open_loop(ramp(0, 4, 4), burstiness=float("inf")))
    assert times == pytest.approx([(2 * k) ** 0.5 for k in range(1, 8)])


def test_step_without_load_has_no_arrivals() -> None:
    times = list(open_loop(steps([20, 0, 20], 30), seed=3))
    assert not [at_s for at_s in times if 10.0001 < at_s < 19.9999]
    assert [at_s for at_s in times if at_s > 20]


@given(
    rates=st.lists(st.floats(0, 50), min_size=1, max_size=6),
    burstiness=st.floats(0.2, 5),
    seed=st.integers(0, 99),
)
def test_times_are_in_order_and_within_the_curve(
    rates: list[float], burstiness: float, seed: int
) -> None:
    curve = steps(rates, 20)
    times = list(open_loop(curve, burstiness=burstiness, seed=seed))
    assert times == sorted(times)
    assert all(0 <= at_s <= 20 for at_s in times)


@pytest.mark.parametrize(
    "points",
    [
        (), ((0.0, 1.0),), ((0.0, 1.0), (0.0, 1.0)), ((1.0, 1.0), (2.0, 1.0)),
        ((0.0, 1.0), (2.0, 1.0), (1.0, 1.0)), ((0.0, -1.0), (1.0, 1.0)),
        ((0.0, float("nan")), (1.0, 1.0)),
    ],
)  # fmt: skip
def test_curve_that_makes_no_sense_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError):
        RateCurve(points)


def test_burstiness_must_be_positive() -> None:
    with pytest.raises(ValueError, match="burstiness"):
        list(open_loop(constant(1, 1), burstiness=0))
