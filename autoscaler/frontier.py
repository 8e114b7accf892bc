"""The frontier of each policy: which attainment it gives for how many GPU-hours, over its knobs.

Where a bar is missed, one best run says little. The frontier says what each policy would give for
more, and how far apart they are. A rival is turned by the knobs of its grid, ours by the manifest's
`headroom`, a static fleet by its size. Runs far from the bar are given up, and not shown.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from autoscaler.rivals import Penstock, RayServe, RayServeKnobs
from autoscaler.search import Candidate, Grid, Run, pool
from autoscaler.simulate import Budget, Outcome, Scenario, least_static, run_static
from autoscaler.tuning import GRIDS

MISSES_SHOWN = 5.0
"""Times the misses that the SLO allows."""
HOURS_SHOWN = 2.0
"""Times the GPU-hours of the least static fleet."""
HEADROOMS = (0.0, 0.05, 0.1, 0.2, 0.3)
SIZES_BELOW, SIZES_ABOVE = 4, 2
"""Of static fleets, beside the least one."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run that no other of its policy beats in both."""

    attainment: float
    gpu_hours: float
    knobs: str


def frontiers(scenario: Scenario, names: Iterable[str], jobs: int = 1) -> dict[str, list[Point]]:
    """The frontier of each policy, from the fewest GPU-hours to the most; empty where none of its
    runs comes near the bar.

    Args:
        jobs: Processes that run the simulations.
    """
    least = least_static(scenario)
    allowed = (1.0 - scenario.attainment) * len(scenario.trace)
    budget = Budget(HOURS_SHOWN * least.gpu_hours, max(1.0, MISSES_SHOWN * allowed))
    runs = {
        name: [partial(_try, run, budget) for run in _runs(name, scenario)]
        if name != "static"
        else [partial(_try_static, scenario, budget, n) for n in _sizes(least, scenario)]
        for name in names
    }
    if jobs <= 1:
        return {name: undominated(one() for one in each) for name, each in runs.items()}
    with pool(jobs) as workers:
        begun = {
            name: [workers.processes.submit(one) for one in each] for name, each in runs.items()
        }
        return {name: undominated(one.result() for one in each) for name, each in begun.items()}


def undominated(points: Iterable[Point | None]) -> list[Point]:
    """Those that no other one beats, or equals for less; rising in both."""
    kept: list[Point] = []
    for point in sorted(
        (point for point in points if point is not None),
        key=lambda point: (point.gpu_hours, -point.attainment),
    ):
        if not kept or point.attainment > kept[-1].attainment:
            kept.append(point)
    return kept


def _runs(name: str, scenario: Scenario) -> Sequence[Run]:
    grid: Grid = {"penstock": _ours, "ray-serve": _ray_serve_defaults, **GRIDS}[name]
    return [Run(name, scenario, grid, n) for n, _ in enumerate(grid(scenario))]


def _ours(scenario: Scenario) -> Iterator[Candidate]:
    for headroom in HEADROOMS:
        spec = replace(scenario.spec(), headroom=headroom)
        yield Candidate(f"headroom={headroom:g}", partial(Penstock, spec))


def _ray_serve_defaults(scenario: Scenario) -> Iterator[Candidate]:
    yield Candidate("defaults", partial(RayServe, RayServeKnobs(), scenario.places))


def _sizes(least: Outcome, scenario: Scenario) -> range:
    engines = max(count for _, count in least.timeline)
    lowest, highest = max(1, engines - SIZES_BELOW), min(scenario.places, engines + SIZES_ABOVE)
    return range(lowest, highest + 1)


def _try(run: Run, budget: Budget) -> Point | None:
    return _point(run.within(budget), budget)


def _try_static(scenario: Scenario, budget: Budget, engines: int) -> Point | None:
    return _point(run_static(scenario, engines), budget)


def _point(outcome: Outcome | None, budget: Budget) -> Point | None:
    """What is sent back from a process: a few numbers, and not each request's latency."""
    if outcome is None or len(outcome.missed_at_s) > budget.missed:
        return None
    return Point(outcome.attainment, outcome.gpu_hours, outcome.knobs)
