"""The ladder as a tuning run starts it, against a fake engine."""

import argparse
import subprocess
import sys
from collections.abc import Awaitable, Callable

from loadtests.ladder import climb, parse


def flags(url: str) -> argparse.Namespace:
    return parse(
        [url, "--levels", "1", "4", "--rounds", "2", "--input-tokens", "16",
         "--output-tokens", "8", "--prefill-tokens", "64"]
    )  # fmt: skip


async def test_ladder_measures_each_level_and_prompts_alone(
    start: Callable[..., Awaitable[str]],
) -> None:
    url = await start()
    found = await climb(url, None, flags(url))
    levels = found["levels"]
    assert isinstance(levels, list)
    assert [level["concurrency"] for level in levels] == [1, 4]
    assert all(level["failed"] == 0 and level["output_rate"] > 0 for level in levels)
    assert all(level["tpot_p50"] is not None and level["ttft_p99"] > 0 for level in levels)
    assert isinstance(found["prefill_tokens_s"], float)


async def test_ladder_of_a_server_that_fails_tells_of_it(
    start: Callable[..., Awaitable[str]],
) -> None:
    url = await start(faults=("500:every=2",))
    found = await climb(url, None, flags(url))
    levels = found["levels"]
    assert isinstance(levels, list)
    assert sum(level["failed"] for level in levels) > 0


def test_ladder_without_a_server_ends_with_a_code_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.ladder", "http://127.0.0.1:9", "--levels", "1"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 6
    assert "error:" in done.stderr
    assert done.stdout == ""
