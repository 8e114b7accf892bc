"""A Python environment with one of our wheels alone, without Docker, pip or a network.

Its dependencies are those of this environment, which come from the same constraints. No pip: its
outcome hangs on the machine's configuration, caches and temporary folders.
"""

import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distributions
from pathlib import Path


def install(source: Path, folder: Path) -> Path:
    """Builds the wheel of a source tree and installs it; returns the environment's Python."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(
        build, cwd=source, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    venv.create(folder / "venv", with_pip=False)
    made = folder / "venv" / "bin" / "python"
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (wheel_file,) = folder.glob("penstock-*.whl")
    with zipfile.ZipFile(wheel_file) as wheel:
        wheel.extractall(site)  # which is all that an installer does, but for the commands
    (installed,) = distributions(name="penstock", path=[str(site)])
    for command in installed.entry_points.select(group="console_scripts"):
        script = made.with_name(command.name)
        script.write_text(
            f"#!{made}\nimport sys\nfrom {command.module} import {command.attr}\n"
            f"sys.exit({command.attr}())\n"
        )
        script.chmod(0o755)
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(ours + "\n")
    return made
