"""The search against queues whose capacity is known from theory; simulated, without a clock."""

import heapq
import math
import random

import pytest

from loadtests.arrivals import constant, open_loop
from loadtests.measure import Failure, Outcome
from loadtests.search import Objective, Probe, SearchError, find_capacity, parse_objectives
from loadtests.summary import Summary, summarize


def queue(rate_rps: float, seed: int, *, servers: int, service_s: float, requests: int) -> Summary:
    """An M/M/c queue: TTFT is the wait for a server."""
    rng = random.Random(f"service/{seed}")
    free_s = [0.0] * servers
    outcomes = []
    for at_s in open_loop(constant(rate_rps, requests / rate_rps), seed=seed):
        start_s = max(at_s, free_s[0])
        heapq.heapreplace(free_s, start_s + rng.expovariate(1 / service_s))
        outcomes.append(Outcome("chat", at_s, at_s, ttft_s=start_s - at_s, e2e_s=start_s - at_s))
    return summarize(outcomes, requests / rate_rps)


def known_capacity(servers: int, service_s: float, wait_p99_s: float) -> float:
    """The rate at which 1 % wait longer than that: P(W > t) = C(c, a) exp(-(c mu - lambda) t),
    Erlang's C (L. Kleinrock, Queueing Systems 1, 1975, section 3.5)."""

    def share(rate_rps: float) -> float:
        load = rate_rps * service_s
        blocked = 1.0  # Erlang's B by its recursion
        for number in range(1, servers + 1):
            blocked = load * blocked / (number + load * blocked)
        waits = blocked / (1 - load / servers * (1 - blocked))
        return waits * math.exp(-(servers / service_s - rate_rps) * wait_p99_s)

    low, high = 0.0, servers / service_s
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) < 0.01 else (low, middle)
    return low


@pytest.mark.parametrize("seed", range(10))
async def test_search_finds_the_known_capacity_of_a_queue(seed: int) -> None:
    servers, service_s, wait_s = 8, 0.05, 0.1

    async def measure(rate_rps: float, run_seed: int) -> Summary:
        return queue(rate_rps, run_seed, servers=servers, service_s=service_s, requests=6000)

    found = await find_capacity(
        measure, [Objective("ttft_p99", wait_s)], start_rps=20.0, seed=seed * 100_000
    )
    assert found.rate_rps == pytest.approx(known_capacity(servers, service_s, wait_s), rel=0.05)
    assert found.held_rps <= found.rate_rps
    rates = [probe.rate_rps for probe in found.probes]
    assert rates == sorted(rates)


def server(edge_rps: float, *, failed: bool = False, late: bool = False):
    """A server whose TTFT is its rate over its edge, in seconds, without noise."""

    async def measure(rate_rps: float, seed: int) -> Summary:
        del seed
        outcome = Outcome("chat", -1.0 if late else 0.0, 0.0, ttft_s=rate_rps / edge_rps, e2e_s=9)
        outcome.failure = Failure.SERVER_ERROR if failed else None
        return summarize([outcome], 1.0)

    return measure


@pytest.mark.parametrize("start_rps", [0.01, 1.0, 7.3, 500.0])
async def test_search_finds_an_edge_from_above_and_below(start_rps: float) -> None:
    told: list[Probe] = []
    found = await find_capacity(
        server(10.0), [Objective("ttft_p99", 1.0)], start_rps=start_rps, tell=told.append
    )
    assert found.rate_rps == pytest.approx(10.0, rel=1e-6)  # this score is linear: no noise
    assert 9.7 < found.held_rps <= 10.0
    assert len(told) == len(found.probes) < 20


async def test_strictest_objective_decides() -> None:
    objectives = [Objective("ttft_p99", 100.0), Objective("ttft_p50", 0.5)]
    found = await find_capacity(server(10.0), objectives, start_rps=1.0)
    assert found.rate_rps == pytest.approx(5.0, rel=1e-6)


async def test_server_that_fails_at_any_rate_has_no_capacity() -> None:
    found = await find_capacity(
        server(10.0, failed=True), [Objective("ttft_p99", 1.0)], start_rps=4.0
    )
    assert (found.rate_rps, found.held_rps) == (0.0, 0.0)


async def test_client_at_its_end_stops_the_search() -> None:
    with pytest.raises(SearchError, match="late"):
        await find_capacity(server(10.0, late=True), [Objective("ttft_p99", 1.0)], start_rps=1.0)


async def test_server_without_an_edge_stops_the_search() -> None:
    with pytest.raises(SearchError, match="begin higher"):
        await find_capacity(server(1e9), [Objective("ttft_p99", 1.0)], start_rps=1.0)


def test_objectives_are_read() -> None:
    assert parse_objectives("ttft_p99=2, tpot_p99=0.1") == (
        Objective("ttft_p99", 2.0),
        Objective("tpot_p99", 0.1),
    )
    for text in ("", "speed=1", "ttft_p99", "ttft_p99=0", "ttft_p99=-1"):
        with pytest.raises(ValueError):
            parse_objectives(text)
