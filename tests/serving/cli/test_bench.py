"""`penstock bench` hands over to the load tests: URL and key from the settings, flags as given."""

import json
import os
import subprocess
import sys
from pathlib import Path

PENSTOCK = Path(sys.executable).with_name("penstock")


def penstock(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "OPENAI_"))}
    return subprocess.run(
        [PENSTOCK, "bench", *arguments], env=clean | settings, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def test_bench_measures_the_platform_of_the_settings() -> None:
    command = [sys.executable, "-m", "loadtests.fake_engine", "--step-ms", "1", "--token", "key"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        url = f"http://127.0.0.1:{json.loads(engine.stdout.readline())['port']}"
        try:
            done = penstock("--requests", "2", PENSTOCK_URL=url, PENSTOCK_API_KEY="key")
        finally:
            engine.terminate()
    assert done.returncode == 0, done.stderr
    assert url in done.stdout
    assert "2 completed, 0 failed" in done.stdout


def test_bench_passes_all_flags_on() -> None:
    done = penstock("--help")
    assert done.returncode == 0
    assert "--find-capacity" in done.stdout
    assert "usage: penstock bench" in done.stdout


def test_bench_says_what_is_wrong_and_with_which_code() -> None:
    done = penstock("http://127.0.0.1:9", "--requests", "1")
    assert (done.returncode, done.stdout) == (6, "")
    assert "does not answer" in done.stderr
