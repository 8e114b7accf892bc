import random
from statistics import fmean

import pytest

from loadtests.compare import COMPARED, Interval, added, bootstrap, compare, ratio
from loadtests.measure import Failure, Outcome
from loadtests.summary import Summary, summarize


def run(ttft_s: float, *, failures: int = 0) -> Summary:
    outcomes = []
    for number in range(10):
        made = Outcome("chat", float(number), float(number), ttft_s=ttft_s, e2e_s=ttft_s + 1)
        made.output_tokens = 11
        made.gaps_s.extend([0.1] * 10)
        made.failure = Failure.RESET if number < failures else None
        outcomes.append(made)
    return summarize(outcomes, 10.0)


def test_interval_of_a_known_distribution_covers_its_mean_about_as_often_as_it_says() -> None:
    rng = random.Random(0)
    covered = sum(
        bootstrap([rng.gauss(5, 1) for _ in range(20)], fmean, seed=number).holds(5.0)
        for number in range(100)
    )
    # A percentile bootstrap of 20 values is a little narrow: some 92 to 93 %.
    assert 85 <= covered <= 99


def test_equal_servers_have_a_ratio_of_one() -> None:
    assert ratio([(2.0, 2.0), (3.0, 3.0)]) == Interval(1.0, 1.0, 1.0)
    assert added([(2.0, 2.0), (3.0, 3.0)]) == Interval(0.0, 0.0, 0.0)


def test_what_slows_both_runs_of_a_pair_cancels_out() -> None:
    rng = random.Random(1)
    pairs = []
    for _ in range(10):
        drift = rng.uniform(1, 10)
        pairs.append((0.9 * drift, drift))
    interval = ratio(pairs)
    assert interval.estimate == pytest.approx(0.9)
    assert interval.high - interval.low < 1e-9


def test_ratio_is_that_of_a_over_b_whichever_way_round() -> None:
    pairs = [(1.0, 2.0), (1.0, 8.0)]
    assert ratio(pairs).estimate == pytest.approx(0.25)
    assert ratio([(b, a) for a, b in pairs]).estimate == pytest.approx(4.0)


def test_comparison_has_every_figure() -> None:
    comparison = compare([(run(0.3), run(0.1))] * 10)
    figures = {each.name: each for each in comparison.figures}
    assert tuple(figures) == COMPARED
    assert figures["ttft_p50"].ratio.estimate == pytest.approx(3.0)
    assert figures["ttft_p50"].added.estimate == pytest.approx(0.2)
    assert figures["output_rate"].ratio.estimate == pytest.approx(1.0)
    assert comparison.complaints == ()


def test_few_pairs_and_failures_are_complained_of() -> None:
    comparison = compare([(run(0.3, failures=2), run(0.1))] * 3)
    assert [said.split(":")[0] for said in comparison.complaints] == [
        "3 pairs are few",
        "6 requests failed",
    ]


def test_figure_that_one_run_lacks_is_left_out() -> None:
    comparison = compare([(run(0.3, failures=10), run(0.1))] * 10)
    assert comparison.figures == ()
    assert "no request completed" in comparison.complaints


def test_nothing_cannot_be_estimated_from() -> None:
    with pytest.raises(ValueError, match="nothing"):
        bootstrap([], fmean)
