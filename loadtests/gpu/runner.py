"""Runs parts one after the other, each in a process of its own with a time limit of its own."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GRACE_S = 20.0
"""From being asked to end to being killed: enough to stop a platform."""
LEAST_S = 5.0
"""With less than this left no further part is begun."""


@dataclass(frozen=True, slots=True)
class Task:
    """A part and its limit."""

    name: str
    command: Sequence[str]
    """Run with the file for its figures after it."""
    limit_s: float


@dataclass(slots=True)
class Result:
    """What became of a part."""

    name: str
    status: str
    """ok, failed, timed out, skipped or not begun."""
    said: str = ""
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    gpu_mib: tuple[int | None, int | None] = (None, None)
    """In use before it, and after it."""


def run_all(
    tasks: Iterable[Task],
    folder: Path,
    budget_s: float,
    *,
    used_mib: Callable[[int | None], int | None] = lambda before: None,
    clean_up: Callable[[str], None] = lambda name: None,
    on_begin: Callable[[Task], None] = lambda task: None,
    on_end: Callable[[list[Result]], None] = lambda results: None,
) -> list[Result]:
    """Runs all of them, whatever becomes of each; begins none that the budget has no time for.

    Args:
        tasks: In order.
        folder: For logs and figures; there already.
        budget_s: For all together.
        used_mib: Reads the GPU's memory in use, after waiting for it to come down to what it was.
        clean_up: Called after each part, to end what it left.
        on_begin: Called before each part.
        on_end: Called after each part with all results so far.
    """
    deadline_s = time.monotonic() + budget_s
    results: list[Result] = []
    for task in tasks:
        left_s = deadline_s - time.monotonic()
        if left_s < LEAST_S:
            results.append(Result(task.name, "not begun", "the time for all parts was used up"))
            on_end(results)
            continue
        on_begin(task)
        before = used_mib(None)
        try:
            result = _run(task, folder, min(task.limit_s, left_s))
        finally:  # also where the check itself is ended
            clean_up(task.name)
        result.gpu_mib = (before, used_mib(before))
        results.append(result)
        on_end(results)
    return results


def _run(task: Task, folder: Path, limit_s: float) -> Result:
    file = folder / f"{task.name}.json"
    file.unlink(missing_ok=True)
    began_s = time.monotonic()
    with (folder / f"{task.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*task.command, str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(limit_s)
            in_time = True
        except subprocess.TimeoutExpired:
            in_time = False
        finally:
            _end(process)
    result = _read(task.name, file)
    result.seconds = time.monotonic() - began_s
    if not in_time:
        result.status, result.said = "timed out", f"it took longer than {limit_s:.0f} s"
    elif result.status == "running":
        result.status, result.said = "failed", f"its process ended with {process.returncode}"
    return result


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends the part's process if it still runs, then whatever of its group is left."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(name: str, file: Path) -> Result:
    try:
        told = json.loads(file.read_text())
        return Result(name, told["status"], told["said"], figures=told["figures"])
    except (OSError, ValueError, LookupError):
        return Result(name, "running")
