"""`make bench-agreement`: our load test's figures beside those of other clients, on a real engine.

Starts a platform of its own with one engine of the model of 100M parameters, and has our client,
vLLM's and guidellm measure that engine directly, in at least ten rounds (see loadtests.agreement).
guidellm is installed into an environment of its own beside the other peers (scripts/peers), which
takes gigabytes; `--without-guidellm` leaves it out. Run it on a machine that does nothing else.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.bench_overhead import INTERRUPTED, MAKE_MODEL
from scripts.own_platform import LARGE, BenchError, platform

GUIDELLM = "guidellm==0.8.1"
PEERS = Path(os.environ.get("PENSTOCK_PEERS_DIR") or Path.home() / ".cache/penstock/peers")


def guidellm() -> Path:
    """The command of guidellm, installed where it is not there yet.

    Raises:
        CalledProcessError: It cannot be installed.
    """
    folder = PEERS / GUIDELLM
    command = folder / "bin" / "guidellm"
    if not command.exists():
        sys.stderr.write(f"installing {GUIDELLM} into {folder} ...\n")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run(
            [folder / "bin" / "pip", "install", "--quiet", "--no-input", GUIDELLM],
            check=True,
            stdout=sys.stderr,
        )
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; further arguments go to loadtests.agreement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guidellm", type=Path, metavar="COMMAND", help="one that is installed")
    parser.add_argument("--without-guidellm", action="store_true")
    parsed, further = parser.parse_known_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not parsed.without_guidellm:
            further += ["--guidellm", str(parsed.guidellm or guidellm())]
        with tempfile.TemporaryDirectory(prefix="agreement-") as name:
            model = Path(name, "100m")
            subprocess.run([sys.executable, MAKE_MODEL, model], check=True, stdout=sys.stderr)
            with platform(Path(name)) as running:
                running.deploy(LARGE, model.as_uri())
                url, token = running.engine(LARGE.name)
                command = [
                    sys.executable, "-m", "loadtests.agreement", url, "--model", LARGE.name,
                    "--tokenizer", str(model), *further,
                ]  # fmt: skip
                environment = {**os.environ, "OPENAI_API_KEY": token}
                environment.pop("PENSTOCK_API_KEY", None)
                return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return INTERRUPTED
    except (BenchError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
