"""The list of vLLM's architectures, without vLLM; and against it where it is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from models.architectures import UnknownArchitectureError, check_architecture, known
from models.catalog import entries

ROOT = Path(__file__).parents[2]


def test_every_model_of_the_catalog_is_known() -> None:
    assert len(known()) > 200
    for entry in entries():
        check_architecture(entry.config)


def test_unknown_name_is_told_with_those_that_are_alike() -> None:
    with pytest.raises(UnknownArchitectureError, match="LlamaForCausalLM") as caught:
        check_architecture({"architectures": ["LlamaForCausalLMM"]})
    assert "model_impl" in str(caught.value.hint)


@pytest.mark.parametrize("config", [{}, {"architectures": []}, {"architectures": "x"}])
def test_no_name_is_told(config: dict[str, object]) -> None:
    with pytest.raises(UnknownArchitectureError, match="names no architecture"):
        check_architecture(config)


@pytest.mark.engine
def test_list_is_that_of_the_installed_vllm() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/architectures.py", "--check"],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, "run `python scripts/architectures.py`"
