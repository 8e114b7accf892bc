"""`penstock deploy --simulate`: the replay is shown, and nothing is deployed without a yes."""

from pathlib import Path

import pytest

from serving.protocol import ModelState
from serving.scaling import CapacityView, DemandView
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform

CAPACITY = CapacityView(
    source="learned", slots=8, prefill_tps=2000.0, step_s=0.005, step_per_seq_s=0.002,
    chunk_tokens=2048, starts_s=[0.5],
)  # fmt: skip


@pytest.fixture
def file(tmp_path: Path, platform: FakePlatform) -> str:
    platform.deploy("guide", ModelState.READY)
    platform.capacity = CAPACITY
    platform.demand = DemandView(seconds=[(1000 + 10 * n, 2, 100, 2, 60) for n in range(20)])
    path = tmp_path / "guide.yaml"
    path.write_text("name: guide\nsource: builtin://guide\nscaling: {min: 1, max: 2}\n")
    return str(path)


def posts(platform: FakePlatform) -> int:
    return sum(method == "POST" for method, *_ in platform.asked)


def test_replay_is_shown_and_yes_deploys(run: Run, platform: FakePlatform, file: str) -> None:
    done = run("deploy", "-f", file, "--simulate", "--yes")
    assert done.code == 0, done.err
    assert "40 requests of the last 6 h replayed" in done.err
    assert "as it is" in done.err
    assert "as asked" in done.err
    assert posts(platform) == 1


def test_nothing_is_deployed_where_nobody_answers(
    run: Run, platform: FakePlatform, file: str
) -> None:
    done = run("deploy", "-f", file, "--simulate")
    assert done.code == 2
    assert "--yes" in done.err
    assert posts(platform) == 0


def test_model_without_demand_or_a_known_engine_is_said_so(
    run: Run, platform: FakePlatform, file: str
) -> None:
    platform.capacity = CapacityView(source="unknown")
    assert "not known yet" in run("deploy", "-f", file, "--simulate", "--yes").err
    platform.demand = DemandView(seconds=[])
    assert "nobody asked" in run("deploy", "-f", file, "--simulate", "--yes").err
    platform.models.clear()
    assert "is new" in run("deploy", "-f", file, "--simulate", "--yes").err
