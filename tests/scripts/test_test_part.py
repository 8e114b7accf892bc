"""Parts of the tests: what fails is tried once more, and fails where it fails twice."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.test_parts import parts_of

ROOT = Path(__file__).parents[2]

FLAKY = """
from pathlib import Path

def test_good(): pass

def test_flaky():
    seen = Path(__file__).with_name("seen")
    first = not seen.exists()
    seen.touch()
    assert not first
"""
BROKEN = "def test_broken(): assert False\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    for name in ("test_part.sh", "test_parts.py"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return start(checkout, "scripts/test_part.sh", "part", *arguments)


def start(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # Plugins take longer to import than all the rest, and none of them is asked for anything here.
    plain = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        command, cwd=checkout, env=plain, capture_output=True, text=True, check=False
    )


def test_part_passes_where_what_failed_passes_alone(checkout: Path) -> None:
    (checkout / "test_it.py").write_text(FLAKY)
    done = run(checkout)
    assert done.returncode == 0, done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert "part: a second try" in done.stdout
    assert "1 passed" in done.stdout.splitlines()[-1]


def test_part_fails_where_a_test_fails_twice(checkout: Path) -> None:
    (checkout / "test_it.py").write_text(FLAKY + BROKEN)
    done = run(checkout)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout.splitlines()[-1]


def test_part_that_cannot_be_collected_fails_at_once(checkout: Path) -> None:
    (checkout / "test_it.py").write_text("import nothing_like_that\n")
    done = run(checkout)
    assert done.returncode == 2
    assert "second try" not in done.stdout


def test_part_of_which_nothing_is_left_passes(checkout: Path) -> None:
    (checkout / "test_it.py").write_text(BROKEN)
    assert run(checkout, "-k", "another").returncode == 0


def test_parts_beside_each_other_have_their_second_tries_alone(checkout: Path) -> None:
    for name, text in {"flaky": FLAKY, "broken": BROKEN, "good": "def test_good(): pass\n"}.items():
        (checkout / f"test_{name}.py").write_text(text)
    parts = ("flaky", "test_flaky.py", "+", "broken", "test_broken.py", "+", "good", "test_good.py")
    done = start(checkout, sys.executable, "scripts/test_parts.py", *parts)
    assert done.returncode == 1
    first, _, rest = done.stdout.partition("flaky: a second try of what failed\n")
    assert {line.partition("|")[0].strip() for line in first.splitlines()} == {
        "flaky", "broken", "good",
    }  # fmt: skip
    flaky, _, broken = rest.partition("broken: a second try of what failed\n")
    assert "1 passed" in flaky.splitlines()[-1]
    assert "1 failed" in broken.splitlines()[-2]
    assert broken.splitlines()[-1] == "failed: broken"


def test_make_test_has_each_unit_in_one_part() -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    said = subprocess.run(
        ["make", "-n", "test", "PYTEST_FLAGS="],
        cwd=ROOT, env=bare, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (line,) = [line for line in said.splitlines() if "test_parts.py" in line]
    words = line.partition("test_parts.py")[2].partition("||")[0]
    engines, *slices, others = parts_of(shlex.split(words))
    assert engines[:3] == ["engines", "-m", "engine and not bench"]
    assert all(part[1:3] == ["-m", "not engine"] for part in (*slices, others))
    folders = [folder for part in slices for folder in part[3:]]
    assert all((ROOT / folder).is_dir() for folder in folders)
    assert others[3:] == [word for folder in folders for word in ("--ignore", folder)]
    names = [part[0] for part in (engines, *slices, others)]
    assert len(set(names)) == len(names)
