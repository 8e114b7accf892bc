"""A flood beside a calm tenant, in simulated time."""

from scripts import bench_fairness as fairness


def test_calm_tenant_hardly_notices_a_flood_where_the_line_is_fair() -> None:
    found = fairness.measure(fairness.SCENARIOS[0], 1, 0.8, 30.0)
    assert found.ratio <= fairness.BAR
    assert found.fair[fairness.CALM].refused == 0
    assert found.plain[fairness.CALM].refused > len(found.plain[fairness.CALM].ttft_s)
    # The flood gets what the calm tenant leaves: more than its own half.
    assert found.fair[fairness.FLOOD].tokens > found.fair[fairness.CALM].tokens
    assert found.fair[fairness.FLOOD].refused > 0
    line = fairness.json_line([found])
    assert line["met"] is True
    assert fairness.table([found]).row_count == 5


def test_calm_tenant_hardly_notices_a_flood_of_long_prompts() -> None:
    found = fairness.measure(fairness.SCENARIOS[2], 1, 0.8, 8.0)
    assert found.ratio <= fairness.BAR
    assert found.fair[fairness.CALM].refused == 0
    assert found.fair[fairness.FLOOD].tokens > 0
