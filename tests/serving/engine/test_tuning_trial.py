"""A tuning run's trial with real vLLM: figures of an engine, and a reason where there is none."""

from pathlib import Path

import pytest

from models.manifest import parse_manifest
from serving.engine.launcher_client import SocketLauncher
from serving.tuning.engines import EngineRunner, Load
from serving.tuning.trials import TrialError
from tests.serving.engine.real import Launcher

pytestmark = pytest.mark.engine


async def test_trial_measures_an_engine_and_ends_it_and_a_refused_one_says_why(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    manifest = parse_manifest(
        {"name": "tiny", "source": f"file://{tiny_model}", "engine": {"max_num_seqs": 4}}
    )
    launcher = SocketLauncher(vllm_launcher.socket)
    runner = EngineRunner(launcher, manifest, tiny_model, tmp_path, Load((1, 2), 16, 8, 32))
    figures = await runner.run({"max_num_seqs": 8, "stream_interval": 2}, 1, 0)
    assert [level.concurrency for level in figures.levels] == [1, 2]
    assert all(level.failed == 0 and level.output_rate for level in figures.levels)
    assert figures.prefill_tokens_s
    with pytest.raises(TrialError, match="max_num_batched_tokens"):
        await runner.run({"max_num_batched_tokens": 1}, 1, 0)
    ours = [name for name in (await launcher.hello()).engines if name.startswith("tune-")]
    assert ours == []
