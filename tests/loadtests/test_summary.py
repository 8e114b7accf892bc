import random

import numpy as np
import pytest

from loadtests.measure import Failure, Outcome
from loadtests.summary import (
    Slo,
    Spread,
    figure,
    parse_gate,
    percentile,
    summarize,
)


def outcome(
    ttft_s: float = 0.1, e2e_s: float = 1.1, tokens: int = 11, *, at_s: float = 0.0,
    lag_s: float = 0.0, failure: Failure | None = None,
) -> Outcome:  # fmt: skip
    made = Outcome("chat", at_s - lag_s, at_s, failure=failure, ttft_s=ttft_s, e2e_s=e2e_s)
    made.prompt_tokens, made.output_tokens = 20, tokens
    made.gaps_s.extend([(e2e_s - ttft_s) / (tokens - 1)] * (tokens - 1) if tokens > 1 else [])
    return made


def test_percentiles_are_numpys() -> None:
    rng = random.Random(0)
    values = [rng.lognormvariate(0, 1) for _ in range(137)]
    spread = Spread.of(values)
    assert spread is not None
    for mark, value_s in spread.percentiles_s.items():
        assert value_s == pytest.approx(float(np.percentile(values, mark)))
    assert spread.mean_s == pytest.approx(float(np.mean(values)))
    assert spread.std_s == pytest.approx(float(np.std(values)))
    assert percentile([3.0], 99) == 3.0
    assert Spread.of([]) is None


def test_figures_are_those_of_completed_requests() -> None:
    outcomes = [outcome(), outcome(), outcome(9.0, 99.0, failure=Failure.RESET)]
    summary = summarize(outcomes, duration_s=2.0)
    assert (summary.completed, summary.failed) == (2, 1)
    assert summary.failures == {"reset_mid_stream": 1}
    assert (summary.prompt_tokens, summary.output_tokens) == (40, 22)
    assert (summary.request_rate_rps, summary.output_rate_tps) == (1.0, 11.0)
    assert figure(summary, "ttft_p99") == pytest.approx(0.1)
    assert figure(summary, "tpot_mean") == pytest.approx(0.1)
    assert summary.itl is not None
    assert summary.itl.count == 20
    assert summary.attainment is None


def test_failures_count_against_attainment() -> None:
    outcomes = [
        outcome(),
        outcome(ttft_s=0.3),
        outcome(e2e_s=2.2),  # 0.21 s a token
        outcome(failure=Failure.RATE_LIMITED),
    ]
    summary = summarize(outcomes, 1.0, Slo(ttft_s=0.2, tpot_s=0.15))
    assert (summary.good, summary.attainment) == (1, 0.25)


def test_reply_of_one_token_keeps_any_tpot() -> None:
    assert Slo(tpot_s=0.001).holds(outcome(tokens=1))
    assert not Slo(e2e_s=1.0).holds(outcome(tokens=1))


def test_run_whose_client_lagged_is_not_valid() -> None:
    prompt = summarize([outcome(lag_s=0.019)] * 100, 1.0)
    late = summarize([outcome(lag_s=0.021)] * 100, 1.0)
    assert prompt.complaints == ()
    assert "21 ms late at p99" in late.complaints[0]


def test_run_without_a_completed_request_is_not_valid() -> None:
    summary = summarize([outcome(failure=Failure.CONNECT)], 1.0)
    assert summary.complaints == ("no request completed",)
    assert figure(summary, "ttft_p99") is None
    assert summarize([], 1.0).complaints == ("no request completed",)


def test_peak_in_flight_is_what_overlaps() -> None:
    outcomes = [outcome(e2e_s=1.0, at_s=at_s) for at_s in (0.0, 0.5, 0.9, 1.0, 3.0)]
    assert summarize(outcomes, 4.0).peak_in_flight == 3  # at 1.0 the first has gone


def test_prompts_that_do_not_measure_what_they_should_are_counted() -> None:
    right, wrong = outcome(), outcome()
    right.wanted_prompt_tokens, wrong.wanted_prompt_tokens = 20, 21
    assert summarize([right, wrong, outcome()], 1.0).prompts_off == 1


@pytest.mark.parametrize(
    ("gate", "trips"),
    [
        ("ttft_p99>0.05", True), ("ttft_p99 > 2", False), ("output_rate<100", True),
        ("failed>0", False), ("attainment<0.99", True), ("e2e_mean>1e3", False),
    ],
)  # fmt: skip
def test_gate_trips_on_its_figure(gate: str, trips: bool) -> None:
    # Without an SLO attainment is not measured: such a gate trips.
    assert parse_gate(gate).trips(summarize([outcome()], 1.0)) is trips


@pytest.mark.parametrize("text", ["", "ttft", "ttft_p98>1", "ttft_p99>=1", "speed<3", "failed>x"])
def test_gate_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_gate(text)
