"""Compares the policies on one scenario, each rival with the best knobs of its grid for it.

`autoscaler.search` says which knobs are the best. The grids stand below, in full. Ray Serve's
defaults, whose look-back of 30 s is not in its grid, run as a policy of their own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import product

from autoscaler.clairvoyant import Clairvoyant
from autoscaler.rivals import Hpa, HpaKnobs, Kpa, KpaKnobs, RayServe, RayServeKnobs
from autoscaler.search import Candidate, Grid, best_of, pool
from autoscaler.simulate import Outcome, Scenario, least_static, run, run_penstock

SLOT_SHARES = (0.03, 0.06, 0.12, 0.25, 0.4, 0.55, 0.7, 0.85)
"""Targets of concurrency, as shares of an engine's slots."""
RAY_LOOK_BACK_S = (2.0, 10.0)
RAY_UP_S = (0.0, 5.0)
RAY_DOWN_S = (30.0, 120.0, 600.0)
KPA_WINDOW_S = (6.0, 15.0, 30.0, 60.0, 120.0)
KPA_PANIC = ((0.1, 2.0), (0.1, 1.1))
HPA_WAITING: tuple[float, ...] = (1.0, 5.0, 20.0)
HPA_SYNC_S = (5.0, 15.0)
HPA_DOWN_S = (60.0, 300.0)
CLAIRVOYANT_DRAIN_S = (2.0, 1.5, 1.0, 0.5, 0.25)
CLAIRVOYANT_BUSY = (1.2, 1.1, 1.0, 0.9, 0.8, 0.7)
"""Above 1: more than the engines do at four fifths of their slots."""


def compare(scenario: Scenario, policies: Iterable[str], jobs: int = 1) -> list[Outcome]:
    """The outcome of each policy, in the order asked for.

    Args:
        jobs: Processes that search the rivals' grids.

    Raises:
        KeyError: If a policy is unknown; POLICIES has them all.
    """
    names = list(policies)
    if jobs <= 1 or not any(name in GRIDS for name in names):
        return [POLICIES[name](scenario) for name in names]
    with pool(jobs) as workers:
        whole = {
            name: workers.processes.submit(POLICIES[name], scenario)
            for name in names
            if name not in GRIDS
        }
        found = {
            name: best_of(name, scenario, GRIDS[name], workers) for name in names if name in GRIDS
        }
        return [found[name] if name in found else whole[name].result() for name in names]


def ray_serve_candidates(scenario: Scenario) -> Iterator[Candidate]:
    """Ray Serve's grid; metrics are pushed each second instead of each ten."""
    for share, look_s, up_s, down_s in product(
        reversed(SLOT_SHARES), RAY_LOOK_BACK_S, RAY_UP_S, RAY_DOWN_S
    ):
        knobs = RayServeKnobs(share * scenario.engine.slots, look_s, 1.0, up_s, down_s)
        yield Candidate(
            f"target={knobs.target_ongoing_requests:g} look_back={look_s:g} up={up_s:g} "
            f"down={down_s:g}",
            lambda knobs=knobs: RayServe(knobs, scenario.places),  # type: ignore[misc]
        )


def kpa_candidates(scenario: Scenario) -> Iterator[Candidate]:
    """Knative's grid."""
    for share, window_s, (panic, threshold) in product(
        reversed(SLOT_SHARES), KPA_WINDOW_S, KPA_PANIC
    ):
        knobs = KpaKnobs(share * scenario.engine.slots, window_s, panic, threshold)
        yield Candidate(
            f"target={knobs.target_concurrency:g} window={window_s:g} "
            f"panic={panic:g}/{threshold:g}",
            lambda knobs=knobs: Kpa(knobs, scenario.places),  # type: ignore[misc]
        )


def hpa_candidates(scenario: Scenario) -> Iterator[Candidate]:
    """HPA/KEDA's grid, on waiting requests."""
    return _hpa(scenario, HPA_WAITING, running_too=False)


def hpa_concurrency_candidates(scenario: Scenario) -> Iterator[Candidate]:
    """HPA/KEDA's grid, on waiting and running requests."""
    targets = tuple(share * scenario.engine.slots for share in reversed(SLOT_SHARES))
    return _hpa(scenario, targets, running_too=True)


def _hpa(scenario: Scenario, targets: Sequence[float], *, running_too: bool) -> Iterator[Candidate]:
    for target, sync_s, down_s in product(targets, HPA_SYNC_S, HPA_DOWN_S):
        knobs = HpaKnobs(target, running_too, sync_s, down_s)
        yield Candidate(
            f"target={target:g} sync={sync_s:g} down={down_s:g}",
            lambda knobs=knobs: Hpa(knobs, scenario.places),  # type: ignore[misc]
        )


def clairvoyant_candidates(scenario: Scenario) -> Iterator[Candidate]:
    """The clairvoyant's grid: how tightly it packs, how long it keeps."""
    one, start_s = scenario.engine.capacity(), scenario.known_start_s()
    for drain_s, busy, keep_s in product(
        CLAIRVOYANT_DRAIN_S, CLAIRVOYANT_BUSY, (2 * start_s, 10.0 + start_s)
    ):
        yield Candidate(
            f"drain={drain_s:g} busy={busy:g} keep={keep_s:g}",
            lambda d=drain_s, b=busy, k=keep_s: Clairvoyant(  # type: ignore[misc]
                scenario.trace, one.prefill_tps, one.token_s(0.8 * one.slots), start_s,
                drain_s=d, busy=b, keep_s=k, most=scenario.places,
            ),
        )  # fmt: skip


def _defaults(scenario: Scenario) -> Outcome:
    return run(scenario, "ray-serve", RayServe(RayServeKnobs(), scenario.places), "defaults")


GRIDS: dict[str, Grid] = {
    "ray-serve-tuned": ray_serve_candidates,
    "kpa": kpa_candidates,
    "hpa": hpa_candidates,
    "hpa-concurrency": hpa_concurrency_candidates,
    "clairvoyant": clairvoyant_candidates,
}
"""The policies whose knobs are searched for."""

POLICIES: dict[str, Callable[[Scenario], Outcome]] = {
    "penstock": run_penstock,
    "static": least_static,
    "ray-serve": _defaults,
    **{name: partial(best_of, name, grid=grid) for name, grid in GRIDS.items()},
}
"""All policies by name."""
