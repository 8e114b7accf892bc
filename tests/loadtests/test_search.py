"""The search against queues whose capacity is known from theory; simulated, without a clock."""

import heapq
import math
import random

import pytest

from loadtests.arrivals import constant, open_loop
from loadtests.measure import Failure, Outcome
from loadtests.search import Objective, Probe, SearchError, find_capacity, parse_objectives


def queue(
    rate_rps: float, seed: int, *, servers: int, service_s: float, requests: int
) -> list[Outcome]:
    """An M/M/c queue: TTFT is the wait for a server."""
    rng = random.Random(f"service/{seed}")
    free_s = [0.0] * servers
    outcomes = []
    for at_s in open_loop(constant(rate_rps, requests / rate_rps), seed=seed):
        start_s = max(at_s, free_s[0])
        heapq.heapreplace(free_s, start_s + rng.expovariate(1 / service_s))
        outcomes.append(Outcome("chat", at_s, at_s, ttft_s=start_s - at_s, e2e_s=start_s - at_s))
    return outcomes


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

    async def measure(rate_rps: float, run_seed: int) -> list[Outcome]:
        return queue(rate_rps, run_seed, servers=servers, service_s=service_s, requests=2500)

    found = await find_capacity(
        measure, [Objective("ttft", 99, wait_s)], start_rps=20.0, seed=seed * 100_000
    )
    assert found.rate_rps == pytest.approx(known_capacity(servers, service_s, wait_s), rel=0.05)
    assert found.rate_rps * 0.85 < found.held_rps <= found.rate_rps
    rates = [probe.rate_rps for probe in found.probes]
    assert rates == sorted(rates)


def server(edge_rps: float, *, failed: bool = False, late: bool = False):
    """A server that makes 10 % of all requests wait for a second at its edge, and more beyond it,
    in proportion to the rate; 1,000 requests, without noise."""
    fast, slow = (
        Outcome("chat", -1.0 if late else 0.0, 0.0, ttft_s=ttft_s, e2e_s=9.0)
        for ttft_s in (0.1, 1.0)
    )
    fast.failure = slow.failure = Failure.SERVER_ERROR if failed else None

    async def measure(rate_rps: float, seed: int) -> list[Outcome]:
        del seed
        count = round(80 * min(10.0, rate_rps / edge_rps))  # the first 200 are not counted
        return [fast] * (1000 - count) + [slow] * count

    return measure


@pytest.mark.parametrize("start_rps", [0.05, 7.3, 300.0])
async def test_search_finds_an_edge_from_above_and_below(start_rps: float) -> None:
    told: list[Probe] = []
    found = await find_capacity(
        server(10.0), [Objective("ttft", 90, 0.5)], start_rps=start_rps, tell=told.append
    )
    assert found.rate_rps == pytest.approx(10.0, rel=0.02)
    assert found.held_rps == pytest.approx(10.0, rel=0.06)
    assert len(told) == len(found.probes) < 20


async def test_strictest_objective_decides() -> None:
    objectives = [Objective("ttft", 50, 0.5), Objective("e2e", 99, 5.0)]
    found = await find_capacity(server(10.0), objectives, start_rps=1.0)
    assert found.rate_rps == 0.0  # E2E is never kept


async def test_server_that_fails_at_any_rate_has_no_capacity() -> None:
    found = await find_capacity(
        server(10.0, failed=True), [Objective("ttft", 90, 0.5)], start_rps=4.0
    )
    assert (found.rate_rps, found.held_rps) == (0.0, 0.0)


async def test_client_at_its_end_stops_the_search() -> None:
    with pytest.raises(SearchError, match="late"):
        await find_capacity(server(10.0, late=True), [Objective("ttft", 90, 0.5)], start_rps=1.0)


async def test_server_without_an_edge_stops_the_search() -> None:
    with pytest.raises(SearchError, match="begin higher"):
        await find_capacity(server(1e9), [Objective("ttft", 90, 0.5)], start_rps=1.0)


def test_objectives_are_read() -> None:
    assert parse_objectives("ttft_p99=2, tpot_p99=0.1") == (
        Objective("ttft", 99, 2.0),
        Objective("tpot", 99, 0.1),
    )
    for text in ("", "speed=1", "ttft_p99", "ttft_p99=0", "ttft_p99=-1", "ttft_p98=1"):
        with pytest.raises(ValueError):
            parse_objectives(text)
