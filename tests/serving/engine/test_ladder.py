"""The sleep of engines: what vLLM is told, and on a GPU that memory really comes back."""

import shutil
import subprocess
from pathlib import Path

import pytest

from models.manifest import parse_manifest
from serving.engine.arguments import vllm_arguments, vllm_environment
from tests.serving.engine.real import Launcher, spawned

NO_GPU = shutil.which("nvidia-smi") is None
GPU = {"accelerator": "h200", "gpus": 1}


def manifest(idle: str):
    return parse_manifest(
        {"name": "m", "source": "file:///m", "resources": GPU, "scaling": {"idle": idle}}
    )


def test_engines_that_may_sleep_are_told_so_and_open_the_routes_for_it() -> None:
    sleeps, stops = manifest("sleep-host"), manifest("stop")
    assert "--enable-sleep-mode" in vllm_arguments(sleeps, Path("/m"))
    assert "--enable-sleep-mode" not in vllm_arguments(stops, Path("/m"))
    assert vllm_environment(sleeps, ("0",))["VLLM_SERVER_DEV_MODE"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in vllm_environment(stops, ("0",))


def used_mib() -> int:
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


@pytest.mark.gpu
@pytest.mark.engine
@pytest.mark.skipif(NO_GPU, reason="needs an NVIDIA GPU: vLLM's sleep frees nothing on a CPU")
@pytest.mark.parametrize("level", [1, 2])
def test_sleeper_gives_memory_back_and_says_the_same_after_it(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path, level: int
) -> None:
    environment = {"VLLM_SERVER_DEV_MODE": "1"}
    body = {"model": "tiny", "prompt": "1 2 3", "max_tokens": 8, "temperature": 0}
    with spawned(
        vllm_launcher, tiny_model, tmp_path / "log", environment=environment,
        args={"enable_sleep_mode": True}, kv_cache_gib=2.0,
    ) as engine:  # fmt: skip
        engine.wait_until_ready()
        with engine.client() as http:
            before = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
            awake_mib = used_mib()
            assert http.post(f"/sleep?level={level}").is_success
            assert used_mib() < awake_mib - 1024
            assert http.post("/wake_up").is_success
            if level == 2:
                reload = {"method": "reload_weights"}
                assert http.post("/collective_rpc", json=reload).is_success
                assert http.post("/reset_prefix_cache").is_success
            assert http.post("/v1/completions", json=body).json()["choices"][0]["text"] == before
