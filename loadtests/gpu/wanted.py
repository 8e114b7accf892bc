"""`python wanted.py FOLDER REQUIREMENT...`: deletes the wheels that nothing of these needs.

Runs with whatever Python makes the folder, by pip's own reader of requirements. What is needed and
not there is left to whoever made the folder: a locked list may leave out what is never imported.
"""

import sys
import zipfile
from collections.abc import Iterable, Mapping
from email import message_from_bytes
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name


def needs_of(wheel: Path) -> tuple[str, list[str]]:
    """A wheel's name and what it requires, as its metadata says."""
    with zipfile.ZipFile(wheel) as files:
        name = next(n for n in files.namelist() if n.endswith(".dist-info/METADATA"))
        told = message_from_bytes(files.read(name))
    return canonicalize_name(told["Name"]), told.get_all("Requires-Dist") or []


def reached(wanted: Iterable[str], needs: Mapping[str, Iterable[str]]) -> set[str]:
    """Names of all that the wanted need, on this machine and with this Python, themselves too."""
    left = [Requirement(text) for text in wanted]
    seen: set[tuple[str, str]] = set()
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} if name in needs else ():
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            further = (Requirement(text) for text in needs[name])
            left += [
                one
                for one in further
                if one.marker is None or one.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in seen}


def main(folder: str, *wanted: str) -> int:
    """Runs the command line."""
    wheels = {name: (wheel, more) for wheel in sorted(Path(folder).glob("*.whl"))
              for name, more in [needs_of(wheel)]}  # fmt: skip
    kept = reached(wanted, {name: more for name, (_, more) in wheels.items()})
    if not kept:
        sys.stderr.write(f"error: {folder} has none of {', '.join(wanted)}\n")
        return 1
    for name, (wheel, _) in wheels.items():
        if name not in kept:
            wheel.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
