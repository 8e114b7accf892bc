"""The limit on open files goes up as far as it may, and never down."""

import resource
import subprocess
import sys

import pytest

from serving.open_files import WANTED, wanted_limit

NO_LIMIT = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (1024, 524_288, WANTED),
        (1024, NO_LIMIT, WANTED),
        (1024, 4096, 4096),
        (1_048_576, 1_048_576, 1_048_576),
        (NO_LIMIT, NO_LIMIT, NO_LIMIT),
    ],
)
def test_limit_is_raised_as_far_as_it_may_and_never_lowered(
    soft: int, hard: int, wanted: int
) -> None:
    assert wanted_limit(soft, hard) == wanted


def test_process_and_its_children_may_open_more_files() -> None:
    script = (
        "import resource, subprocess, sys\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "from serving.open_files import allow_many\n"
        "allow_many()\n"
        "code = 'import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])'\n"
        "subprocess.run([sys.executable, '-c', code], check=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert int(done.stdout) == wanted_limit(256, hard)
