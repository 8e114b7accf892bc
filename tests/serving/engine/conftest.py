"""Real engines for the engine tier: the launcher imports vLLM once for all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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
