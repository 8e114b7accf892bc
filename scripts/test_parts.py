"""Parts of the tests, two at a time: test_parts.py NAME [pytest's arguments] [+ NAME ...]...

Each is a part of scripts/test_part.sh; its lines begin with its name. What failed is tried once
more when all parts have ended, one part after the other: so a second try is alone, as it is there.
Name the longest part first.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from threading import Thread
from typing import IO

SCRIPT = Path(__file__).with_name("test_part.sh")
AT_ONCE = 2
"""More would gain nothing where there are two cores, and an engine takes some GiB of memory."""
FAILED = 1
"""What pytest exits with where tests failed; nothing else is for a second try."""
LAST_WORDS_S = 10.0
"""For the lines of a part that has ended. A process that it left over may hold its pipe open."""


def parts_of(arguments: Sequence[str]) -> list[list[str]]:
    """The arguments of each part, cut at `+`."""
    return [list(words) for cut, words in groupby(arguments, lambda word: word == "+") if not cut]


def first_try(part: Sequence[str]) -> int:
    """Runs one part beside others; returns its exit status."""
    process = subprocess.Popen(
        [SCRIPT, *part], env={**os.environ, "TRY": "first"}, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    lines = Thread(target=pass_on, args=(process.stdout, part[0]), daemon=True)
    lines.start()
    status = process.wait()
    lines.join(LAST_WORDS_S)
    return status


def pass_on(lines: IO[str], name: str) -> None:
    for line in lines:
        sys.stdout.write(f"{name:8}| {line}")
        sys.stdout.flush()


def second_try(part: Sequence[str]) -> int:
    """Runs what failed of one part, alone."""
    environment = {**os.environ, "TRY": "second"}
    return subprocess.run([SCRIPT, *part], env=environment, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    parts = parts_of(arguments)
    with ThreadPoolExecutor(AT_ONCE) as together:
        codes = list(together.map(first_try, parts))
    failed = [
        part[0]
        for part, code in zip(parts, codes, strict=True)
        if code and (code != FAILED or second_try(part))
    ]
    if failed:
        sys.stdout.write(f"failed: {' '.join(failed)}\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
