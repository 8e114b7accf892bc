"""Finds a rival's best knobs, on several processes where that is asked for.

The best knobs are those with the fewest GPU-hours among the runs that attain the SLO, else those
with the highest attainment; of equals the first one of the grid, however many processes search. A
run is given up as soon as it can no longer be the best one. Where no knobs attain the SLO, the
search begins anew and allows twice the misses, until some knobs stay within them: most runs end
early that way, and none that is given up could have missed less than the one that is found.
"""

import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from autoscaler.rivals import Scaler
from autoscaler.simulate import Budget, Outcome, Scenario, run_static, run_within
from autoscaler.traces import make_trace


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rival with one choice of knobs."""

    knobs: str
    make: Callable[[], Scaler]


Grid = Callable[[Scenario], Iterator[Candidate]]
"""All candidates for a scenario, the cheap ones first; a function of a module, so that another
process can make them too."""


@dataclass(frozen=True, slots=True)
class Run:
    """One candidate of a grid in a scenario: what is sent to a process."""

    name: str
    scenario: Scenario
    grid: Grid
    number: int

    def within(self, budget: Budget) -> Outcome | None:
        """The outcome; None if the budget was passed."""
        one = list(self.grid(self.scenario))[self.number]
        return run_within(budget, self.scenario, self.name, one.make(), one.knobs)


class Workers(Protocol):
    """Runs candidates, several at once or one after the other."""

    @property
    def jobs(self) -> int:
        """How many may run at once."""
        ...

    def start(self, run: Run, budget: Budget) -> "Future[Outcome | None]":
        """Begins one; its outcome comes later."""
        ...


class Alone:
    """This process, one run after the other."""

    jobs = 1

    def start(self, run: Run, budget: Budget) -> "Future[Outcome | None]":
        """Runs at once."""
        done: Future[Outcome | None] = Future()
        done.set_result(run.within(budget))
        return done


class Pool:
    """Several processes."""

    def __init__(self, jobs: int, processes: ProcessPoolExecutor) -> None:
        self.jobs = jobs
        self.processes = processes

    def start(self, run: Run, budget: Budget) -> "Future[Outcome | None]":
        """Runs as soon as a process is free."""
        return self.processes.submit(run.within, budget)


@contextmanager
def pool(jobs: int) -> Iterator[Pool]:
    """Starts processes, with the compiled core on disk before any of them looks for it.

    Started anew and not forked: the caller may have threads.
    """
    run_static(Scenario(make_trace("first", [(0.0, 1, 2)])), 1)
    anew = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=anew) as processes:
        try:
            yield Pool(jobs, processes)
        finally:
            processes.shutdown(cancel_futures=True)


def best_of(name: str, scenario: Scenario, grid: Grid, workers: Workers | None = None) -> Outcome:
    """The outcome with the best knobs.

    Raises:
        ValueError: If there is no candidate.
    """
    runs = [Run(name, scenario, grid, n) for n, _ in enumerate(grid(scenario))]
    if not runs:
        raise ValueError(f"{name} has no candidate")
    missed = max(1.0, (1.0 - scenario.attainment) * len(scenario.trace))
    while True:
        best = _search(runs, missed, workers or Alone())
        if best is not None and len(best.missed_at_s) <= missed:
            return best
        # Requests that never end are no misses before the end: the last round gives up nothing.
        missed = 2 * missed if missed < len(scenario.trace) else math.inf


def _search(runs: Sequence[Run], missed: float, workers: Workers) -> Outcome | None:
    """The best of those with no more missed requests than given, if there is one."""
    best: tuple[tuple[bool, float, int], Outcome] | None = None
    under_way: dict[Future[Outcome | None], int] = {}
    coming = iter(enumerate(runs))
    while True:
        while len(under_way) < workers.jobs and (following := next(coming, None)) is not None:
            number, run = following
            budget = _budget(missed, None if best is None else best[1], run.scenario)
            under_way[workers.start(run, budget)] = number
        if not under_way:
            return None if best is None else best[1]
        for done in wait(under_way, return_when=FIRST_COMPLETED).done:
            number, outcome = under_way.pop(done), done.result()
            if outcome is not None:
                found = (*_rank(outcome, runs[number].scenario), -number), outcome
                best = found if best is None or found[0] > best[0] else best


def _budget(missed: float, best: Outcome | None, scenario: Scenario) -> Budget:
    if best is None:
        return Budget(missed=missed)
    if best.attainment >= scenario.attainment:
        return Budget(gpu_hours=best.gpu_hours, missed=missed)
    return Budget(missed=min(missed, len(best.missed_at_s)))


def _rank(outcome: Outcome, scenario: Scenario) -> tuple[bool, float]:
    attains = outcome.attainment >= scenario.attainment
    return attains, -outcome.gpu_hours if attains else outcome.attainment
