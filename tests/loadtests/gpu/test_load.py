"""What the load tests print becomes figures, or is refused."""

from typing import Any

import pytest

from loadtests.gpu.load import LoadError, figures_of

PRINTED: dict[str, Any] = {
    "completed": 8, "output_throughput": 100.5, "median_ttft_ms": 20, "p99_ttft_ms": 30.0,
    "median_tpot_ms": 2.0, "p99_tpot_ms": 3.0, "penstock": {"complaints": ["slow to send"]},
}  # fmt: skip


def test_figures_are_read_by_their_names() -> None:
    figures = figures_of(PRINTED, 4)
    assert (figures.concurrency, figures.tokens_s, figures.ttft_p50_ms) == (4, 100.5, 20.0)
    assert (figures.completed, figures.complaints) == (8, 1)


@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), -1.0, "fast"])
def test_figure_that_is_no_number_is_refused_by_its_name(odd: object) -> None:
    with pytest.raises(LoadError, match="median_tpot_ms at 4 at once is no number"):
        figures_of({**PRINTED, "median_tpot_ms": odd}, 4)
