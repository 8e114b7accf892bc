import pytest

from loadtests.measure import Outcome
from loadtests.series import bins, in_flight, output_rate


def outcome(sent_s: float, e2e_s: float, gaps_s: tuple[float, ...] = ()) -> Outcome:
    made = Outcome("chat", sent_s, sent_s, ttft_s=e2e_s - sum(gaps_s), e2e_s=e2e_s)
    made.gaps_s.extend(gaps_s)
    made.chunks = 1 + len(gaps_s)
    made.output_tokens = 2 * made.chunks
    return made


def test_bins_hold_every_value_and_count_what_is_cut_off() -> None:
    edges, counts, above = bins([*range(1, 1001), 100_000.0])
    assert sum(counts) + above == 1001
    assert above == 1
    assert edges[0] == 0
    assert len(edges) == len(counts) + 1


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0.0, 0.0]])
def test_bins_of_equal_values_are_not_empty(values: list[float]) -> None:
    edges, counts, above = bins(values)
    assert sum(counts) == len(values)
    assert above == 0
    assert edges[0] < edges[-1]


def test_in_flight_is_the_most_at_once_in_each_step() -> None:
    points = in_flight([outcome(100.0, 4.0), outcome(102.0, 4.0)], 100.0, 12.0)
    values = {round(at_s, 6): value for at_s, value in points}
    assert (values[1.0], values[3.0], values[5.0], values[11.0]) == (1, 2, 1, 0)


def test_output_rate_adds_up_to_all_tokens() -> None:
    points = output_rate([outcome(100.0, 4.0, (1.0, 1.0)), outcome(103.0, 1.0)], 100.0, 10.0)
    step_s = points[1][0] - points[0][0]
    assert sum(rate for _, rate in points) * step_s == pytest.approx(8)
    assert points[2][1] == pytest.approx(2)
