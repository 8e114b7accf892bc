"""The short form of `make test-metering`: kill -9 of everything, then all counts agree."""

from pathlib import Path

import pytest

from tests.metering.postgres import obstacle
from tests.metering.run import Plan, play

pytestmark = pytest.mark.engine  # no vLLM, but real processes for half a minute

REQUESTS = 300
SEED = 20_261


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_usage_is_exact_whatever_dies(database: str, tmp_path: Path) -> None:
    if database == "postgresql" and (reason := obstacle()) is not None:
        pytest.skip(reason)
    print(f"seed {SEED}")
    assert await play(Plan(REQUESTS, SEED, database), tmp_path) == []
