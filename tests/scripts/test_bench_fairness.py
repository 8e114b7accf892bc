"""A flood beside a calm tenant, in simulated time."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_fairness.py"


@pytest.fixture(scope="module")
def fairness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_fairness", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_calm_tenant_hardly_notices_a_flood_where_the_line_is_fair(fairness: ModuleType) -> None:
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


def test_calm_tenant_hardly_notices_a_flood_of_long_prompts(fairness: ModuleType) -> None:
    found = fairness.measure(fairness.SCENARIOS[2], 1, 0.8, 8.0)
    assert found.ratio <= fairness.BAR
    assert found.fair[fairness.CALM].refused == 0
    assert found.fair[fairness.FLOOD].tokens > 0
