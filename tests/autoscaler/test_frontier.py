"""Frontiers: what no other run of the policy beats, near the bar."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.frontier import HEADROOMS, Point, frontiers, undominated
from autoscaler.report import frontiers_as_json, frontiers_as_table
from autoscaler.simulate import Scenario
from autoscaler.traces import make_trace
from autoscaler.tuning import POLICIES

SCENARIO = Scenario(make_trace("even", [(i / 5, 2000, 50) for i in range(300)]), places=6)

points = st.lists(
    st.builds(Point, st.sampled_from([0.9, 0.95, 0.99, 1.0]), st.integers(1, 9), st.just("x"))
)


@given(points)
def test_frontier_rises_and_every_run_is_beaten_by_one_of_it_or_is_in_it(runs: list[Point]) -> None:
    kept = undominated([*runs, None])
    for before, after in pairwise(kept):
        assert before.gpu_hours < after.gpu_hours
        assert before.attainment < after.attainment
    assert all(
        any(k.gpu_hours <= r.gpu_hours and k.attainment >= r.attainment for k in kept) for r in runs
    )


def test_frontiers_of_policies_are_told() -> None:
    names = ["penstock", "static", "ray-serve", "hpa"]
    assert set(names) <= set(POLICIES)
    found = frontiers(SCENARIO, names)
    assert list(found) == names
    assert {p.knobs for p in found["penstock"]} <= {f"headroom={h:g}" for h in HEADROOMS}
    assert found["static"][0].knobs == "engines=1"
    told = json.loads(frontiers_as_json(SCENARIO, found))
    assert [one["name"] for one in told["frontiers"]] == names
    assert told["slo"]["attainment"] == 0.99
    assert frontiers_as_table(SCENARIO, found).row_count >= len(names)
