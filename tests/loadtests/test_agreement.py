import pytest

from loadtests.agreement import FIGURES, agreements, markdown
from loadtests.rulers import Figures, Load

LOAD = Load("http://x", "m", "t", 4, 32, 64, 48)


def run(factor: float) -> Figures:
    return dict.fromkeys(FIGURES, 100.0 * factor)


@pytest.mark.parametrize(
    ("factors", "agree"),
    [
        ((1.02, 1.021, 1.019), True),  # surely different, by 2 %
        ((0.8, 1.3, 1.1), True),  # 1 is within the interval
        ((1.1, 1.11, 1.09), False),
    ],
)
def test_clients_agree_within_the_interval_or_three_percent(
    factors: tuple[float, ...], agree: bool
) -> None:
    found = agreements([(run(factor), run(1.0)) for factor in factors * 4])
    assert len(found) == len(FIGURES)
    assert all(each.holds is agree for each in found)


def test_table_says_who_measured_what() -> None:
    table = markdown(LOAD, 3, "guidellm", agreements([(run(1.1), run(1.0))] * 3))
    assert "| guidellm |" in table
    assert "| median_ttft_ms | 110.00 | 100.00 | 1.100 | 1.100 to 1.100 | no |" in table


def test_figures_that_were_not_measured_are_left_out() -> None:
    found = agreements([({**run(1.0), "mean_tpot_ms": 0.0}, run(1.0))])
    assert "mean_tpot_ms" not in {each.name for each in found}
