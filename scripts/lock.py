"""Writes `constraints.txt` from the environment that runs this; run it where all tests pass.

It lists what `penstock` needs with all its extras but `gpu`, and nothing else that is installed.
"""

import sys
import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = ("cpu", "dev", "docs", "loadtest", "postgres", "redis", "simulate")
UNWANTED = {"torchvision", "torchaudio", "torchcodec"}
HEAD = """\
# Exact versions of all that `make setup` installs: the closure of penstock with all its extras but
# `gpu` on Python 3.11, without torchvision, torchaudio and torchcodec (scripts/setup.sh says why).
# Made by `python scripts/lock.py` in an environment that passes the tests.
"""


def closure(roots: list[str], installed: dict[str, Distribution]) -> dict[str, str]:
    """Version of each package that the requirements lead to; a local part like +cpu is cut off."""
    versions: dict[str, str] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(root) for root in roots]
    while todo:
        wanted = todo.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if name in UNWANTED or (name, extras) in done:
            continue
        done.add((name, extras))
        if name not in installed:
            raise SystemExit(f"error: {name} is not installed\nhint: run `make setup`")
        versions[name] = installed[name].version.partition("+")[0]
        for line in installed[name].requires or []:
            needed = Requirement(line)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in {"", *extras}):
                todo.append(needed)
    return versions


def main() -> None:
    """Writes the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    roots = project["dependencies"] + [line for extra in EXTRAS for line in optional[extra]]
    installed = {canonicalize_name(one.metadata["Name"]): one for one in distributions()}
    versions = closure(roots, installed)
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    (ROOT / "constraints.txt").write_text(HEAD + "".join(lines))
    sys.stderr.write(f"{len(lines)} packages\n")


if __name__ == "__main__":
    main()
