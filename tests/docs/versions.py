"""Two versions of Penstock on one machine: this one, and an older one that is really installed.

The older one's wheel is built from the repository's history and installed in an environment of its
own; of the older tree only `tests` is there besides, for the hosts that the tests play.
"""

import io
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.helm.chart import CHART, ROOT
from tests.helm.clean_environment import install

OLDER = "52e12ffdcd6bc0ce59204555826620ba9895de0c"
"""The version before this one, of 2026-11-21: before gangs, adapters, tasks and a leader's lease.
At a release: the commit of the release before."""


@dataclass(frozen=True)
class Version:
    """How a version's processes are started."""

    python: Path
    folder: Path
    """Where they run: `tests` of that version is below it."""
    chart: Path


NOW = Version(Path(sys.executable), ROOT, CHART)


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)


def obstacle() -> str | None:
    """Why the older version cannot be had here; None where it can."""
    try:
        done = _git("cat-file", "-e", f"{OLDER}^{{commit}}")
    except OSError:
        return "there is no git"
    return f"the history has no commit {OLDER[:7]}" if done.returncode else None


def older(folder: Path) -> Version:
    """Builds and installs the older version within a folder."""
    archive = _git("archive", "--format=tar", OLDER)
    assert archive.returncode == 0, archive.stderr
    source, place = folder / "source", folder / "place"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(source, filter="data")
    (folder / "built").mkdir()
    python = install(source, folder / "built")
    place.mkdir()
    (source / "tests").rename(place / "tests")
    # The engines that the older tests play fail now and then on purpose.
    engine = place / "tests" / "metering" / "engine.py"
    engine.write_text(re.sub(r"^(FAILS|BREAKS) = .*", r"\1 = 0.0", engine.read_text(), flags=re.M))
    code = "import serving.controller; print(serving.controller.__path__[0])"
    asked = subprocess.run(
        [python, "-c", code], cwd=place, capture_output=True, text=True, check=True
    )
    (at,) = asked.stdout.split()
    assert Path(at).is_relative_to(folder) and not (Path(at) / "leader.py").exists()
    return Version(python, place, source / CHART.relative_to(ROOT))
