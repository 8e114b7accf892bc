"""What needs real vLLM beside the ordinary fork: standbys, two builds side by side, the zygote."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.engine.compile_cache import VARIABLE
from serving.engine.launch_protocol import Hello, HelloRequest, decode_event, encode
from tests.serving.engine.real import START_TIMEOUT_S, Launcher, spawned, start_launcher

pytestmark = pytest.mark.engine

ZYGOTE = """
import os, sys
from serving.engine import vllm_adapter
os.environ.update(vllm_adapter.ENVIRONMENT)
import torch
def refuse(*args, **named):
    raise SystemExit("the imports initialise CUDA")
torch.cuda.init = torch.cuda._lazy_init = refuse
vllm_adapter.pre_import()
assert not torch.cuda.is_initialized()
assert vllm_adapter.fork_obstacle() is None, vllm_adapter.fork_obstacle()
assert not any(name.startswith("ray.") for name in sys.modules)
print("clean", flush=True)
os._exit(0)
"""


def hello(launcher: Launcher) -> Hello:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(launcher.socket))
        line.sendall(encode(HelloRequest()))
        told = decode_event(line.makefile("rb").readline())
    assert isinstance(told, Hello)
    return told


def test_imports_of_the_zygote_leave_cuda_alone() -> None:
    """On a CPU too: whatever would initialise CUDA is refused, not only found out afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", ZYGOTE], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as the launcher has it: no further threads
    )  # fmt: skip
    assert "clean" in done.stdout, done.stdout + done.stderr


def test_standby_serves_as_a_fork_does_beside_another_launcher(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    """The second launcher stands for a second engine build: the same vLLM by another name."""
    with start_launcher(tmp_path, PENSTOCK_STANDBY="1") as other:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while hello(other).standbys < 1:
            assert time.monotonic() < deadline_s, (other.folder / "launcher.log").read_text()
            time.sleep(0.1)
        assert hello(other).build == hello(vllm_launcher).build
        body = {"model": "tiny", "prompt": "1", "max_tokens": 4, "temperature": 0}
        with (
            spawned(other, tiny_model, tmp_path / "a.log", "standby") as standby,
            spawned(vllm_launcher, tiny_model, tmp_path / "b.log", "fork") as forked,
        ):
            texts = []
            for engine in (standby, forked):
                engine.wait_until_ready()
                with engine.client() as http:
                    texts.append(http.post("/v1/completions", json=body).json()["choices"])
            assert standby.forked is not None and standby.forked.mode == "standby"
            assert texts[0][0]["text"] == texts[1][0]["text"]
            assert standby.processes[0].ppid() == other.process.pid
            standby.end()
            standby.assert_gone()
            assert hello(vllm_launcher).engines, "the other build's engine is untouched"


def test_second_start_of_a_model_that_compiles_uses_what_the_first_one_made(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    cache = {VARIABLE: str(tmp_path / "compiled")}
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    for log in logs:
        with spawned(
            vllm_launcher, tiny_model, log, environment=cache, enforce_eager=False
        ) as engine:
            engine.wait_until_ready()
            engine.end()
    first, second = (log.read_text() for log in logs)
    assert "saved AOT compiled function" in first
    assert "Directly load AOT compilation" in second
    assert "Compiling model again" not in second
