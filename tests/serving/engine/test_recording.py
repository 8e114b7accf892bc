"""Reasoning by vLLM's own output processor and parser, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine


def test_reasoning_is_recorded_as_it_is_made(tiny_model: Path, tmp_path: Path) -> None:
    module = "tests.serving.engine.recorded_reasoning"
    command = [sys.executable, "-m", module, str(tiny_model), str(tmp_path / "e1.recorder")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=280)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {
        "thinks": [[1, 1], [3, 3], [5, 3], [6, 3]],
        "hides": [[1, 1], [3, 3], [5, 3], [6, 3]],
        "completes": [[1, 0], [3, 0], [5, 0], [6, 0]],
        "answers": [[1, 0], [3, 0], [5, 0], [6, 0]],
    }
