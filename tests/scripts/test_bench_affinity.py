"""Prefix affinity on a real trace, in simulated time: the bars of the benchmark itself."""

from loadtests.recordings import Row
from scripts import affinity_live
from scripts import affinity_simulated as simulated
from scripts import bench_affinity as affinity


def test_affinity_has_most_of_a_shared_caches_hits_and_loads_engines_evenly() -> None:
    rows = affinity.load(affinity.TRACE).rows
    shared, ours, *_ = simulated.POLICIES
    best = simulated.Replay(shared, rows, 16).run()
    found = simulated.Replay(ours, rows, 16).run()
    assert best.hit_rate > 0.3
    assert found.hit_rate >= affinity.HIT_BAR * best.hit_rate
    assert found.tokens_balance <= affinity.BALANCE_BAR
    assert found.requests_balance <= affinity.BALANCE_BAR
    assert found.computed_balance <= affinity.BALANCE_BAR


def test_every_request_of_the_trace_is_answered() -> None:
    rows = affinity.load(affinity.TRACE).rows[:200]
    for policy in simulated.POLICIES:
        replay = simulated.Replay(policy, rows, 16)
        found = replay.run()
        assert len(replay.ttft_s) == 200
        assert found.ttft_p50_s > 0
    line = affinity.json_line(
        [simulated.Replay(p, rows, 16).run() for p in simulated.POLICIES], 200, 16
    )
    assert line["bench"] == "affinity"
    assert set(line["balance"]) == {"prefix affinity", "fewest tokens", "round robin"}


def test_live_prompts_have_in_common_what_their_rows_have() -> None:
    first, second, third = (
        affinity_live.prompt_of(Row(0.0, 512 * len(blocks) + 60, 1, blocks))
        for blocks in ((0, 1, 300_000), (0, 1, 300_001), (7, 1))
    )
    assert first[:256] == second[:256]
    assert first[256] != second[256] or first[258] != second[258]
    assert first[:128] != third[:128]
    assert all(300 <= token < 800 for token in first)


def test_live_bar_is_what_one_cache_that_forgets_nothing_hits() -> None:
    block = affinity_live.BLOCK_TOKENS
    once = list(range(2 * block))
    assert affinity_live.shared_hits([once]) == 0
    assert affinity_live.shared_hits([once, once]) == block  # the last token is always computed
    assert affinity_live.shared_hits([once, [*once, 1]]) == 2 * block
    assert affinity_live.shared_hits([once, [0, 0, *once]]) == 0
