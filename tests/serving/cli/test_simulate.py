"""`penstock simulate` hands over to the simulator, flags as given."""

import json
import os
import subprocess
import sys
from pathlib import Path

from models.profile_measured import write_measured
from models.profile_search import Here
from tests.models.test_profile_measured import measured

PENSTOCK = Path(sys.executable).with_name("penstock")


def test_simulate_replays_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"2024-01-01 00:00:{second:02d}.0,100,10" for second in range(30)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows))
    done = subprocess.run(
        [PENSTOCK, "simulate", "--trace", trace, "--cold-start", "0.5", "--output", "json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (policy,) = json.loads(done.stdout)["policies"]
    assert policy["name"] == "penstock"
    assert policy["attainment"] == 1.0


def test_simulate_takes_the_engine_that_was_measured(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"2024-01-01 00:00:{second:02d}.0,100,10" for second in range(30)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows))
    here = Here.of_this_machine()
    write_measured(tmp_path, measured(vllm=here.vllm, hardware=here.cpu, prefill_tokens_s=9.0))
    done = subprocess.run(
        [PENSTOCK, "simulate", "--trace", trace, "--cold-start", "0.5", "--output", "json",
         "--profile", "guide", "--max-engines", "1"],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PENSTOCK_PROFILES_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (policy,) = json.loads(done.stdout)["policies"]
    assert policy["attainment"] == 0.0  # prompts of 100 tokens at 9 tokens/s
