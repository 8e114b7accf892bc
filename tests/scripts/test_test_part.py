"""One part of the tests: what fails is tried once more, and fails where it fails twice."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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
    shutil.copy(ROOT / "scripts" / "test_part.sh", tmp_path / "scripts")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["scripts/test_part.sh", "part", *arguments]
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
