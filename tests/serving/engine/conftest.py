"""Real engines for the engine tier: the launcher imports vLLM once for all tests.

And what an engine's run has around it, made of fakes.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.engine.surroundings import Surroundings
from tests.serving.engine.fakes import FakeEngine, FakeLauncher, FakeWeights
from tests.serving.engine.real import Launcher, start_launcher
from tests.serving.engine.tiny_model import write_apart


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Qwen3."""
    return write_apart(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="session")
def vllm_launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """A warm launcher that no test may end."""
    with start_launcher(tmp_path_factory.mktemp("launcher")) as launcher:
        yield launcher


@pytest.fixture
def own_launcher(tmp_path: Path) -> Iterator[Launcher]:
    """A warm launcher for a test that ends it."""
    assert os.environ.get("OMP_NUM_THREADS") in (None, "1")
    with start_launcher(tmp_path) as launcher:
        yield launcher


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def around(tmp_path: Path, launcher: FakeLauncher, engine: FakeEngine) -> Surroundings:
    return Surroundings(
        launcher=launcher,
        weights=FakeWeights(),
        log_dir=tmp_path,
        address="127.0.0.1",
        drain_timeout_s=5.0,
        drain_poll_s=0.01,
        launcher_patience_s=1.0,
        health_interval_s=0.01,
        transport=engine.transport(),
    )
