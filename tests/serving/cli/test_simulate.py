"""`penstock simulate` hands over to the simulator, flags as given."""

import json
import subprocess
import sys
from pathlib import Path

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
