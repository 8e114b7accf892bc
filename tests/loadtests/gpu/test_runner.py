"""Parts have limits of their own, and none costs another its figures."""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.gpu.runner import LEAST_S, Result, Task, run_all

WRITE = "import json, sys; json.dump({document}, open(sys.argv[1], 'w'))"
FINE = {"status": "ok", "said": "", "figures": {"x": 1}}
HALF = {"status": "running", "said": "", "figures": {"x": 2}}
HANG = f"""
echo '{json.dumps(HALF)}' >"$0"
sleep 600 & echo $! >"$0.pid"
trap 'exit 0' TERM
wait
"""
"""In a shell, which is there at once also on a busy machine."""


def task(name: str, program: str, limit_s: float = 60.0) -> Task:
    return Task(name, [sys.executable, "-c", program], limit_s)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may reap it here


def test_parts_that_fail_in_whatever_way_cost_no_other(tmp_path: Path) -> None:
    failed = WRITE.format(document={"status": "failed", "said": "no", "figures": {}})
    results = run_all(
        [
            task("fails", failed),
            task("breaks", "raise SystemExit(7)"),
            task("dies", WRITE.format(document=HALF) + "; import os; os.kill(os.getpid(), 9)"),
            task("fine", WRITE.format(document=FINE)),
        ],
        tmp_path,
        600,
    )
    assert [(r.name, r.status, r.said) for r in results] == [
        ("fails", "failed", "no"),
        ("breaks", "failed", "its process ended with 7"),
        ("dies", "failed", "its process ended with -9"),
        ("fine", "ok", ""),
    ]
    assert results[2].figures == {"x": 2}


def test_part_that_hangs_is_ended_with_all_it_started_and_keeps_its_figures(
    tmp_path: Path,
) -> None:
    ended: list[str] = []
    hangs = Task("hangs", ["sh", "-c", HANG], 2.0)
    (result,) = run_all([hangs], tmp_path, 600, clean_up=ended.append)
    assert (result.status, result.figures) == ("timed out", {"x": 2})
    assert ended == ["hangs"]
    child = int((tmp_path / "hangs.json.pid").read_text())
    deadline_s = time.monotonic() + 30
    while is_alive(child):  # the kernel takes its time over a SIGKILL
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_no_part_is_begun_once_the_time_for_all_is_used_up(tmp_path: Path) -> None:
    told: list[int] = []
    (result,) = run_all(
        [task("late", "")], tmp_path, LEAST_S / 2, on_end=lambda results: told.append(len(results))
    )
    assert result.status == "not begun"
    assert told == [1]


def test_gpu_memory_is_read_before_a_part_and_after_it(tmp_path: Path) -> None:
    asked: list[int | None] = []

    def used(before: int | None) -> int:
        asked.append(before)
        return 100 if before is None else before + 7

    (result,) = run_all([task("a", WRITE.format(document=FINE))], tmp_path, 600, used_mib=used)
    assert result.gpu_mib == (100, 107)
    assert asked == [None, 100]


def test_figures_of_an_earlier_check_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(FINE))
    (result,) = run_all([task("a", "")], tmp_path, 600)
    assert result == Result("a", "failed", "its process ended with 0", result.seconds)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python leaves SIGINT alone where whoever started it ignores it, as shells do for jobs in the
    background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_part_is_ended_and_cleaned_up_after_where_the_check_itself_is_ended(
    tmp_path: Path, interruptible: None
) -> None:
    def interrupt() -> None:
        while not (tmp_path / "hangs.json.pid").exists():
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    ended: list[str] = []
    hangs = Task("hangs", ["sh", "-c", HANG], 60.0)
    interrupter = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_all(
            [hangs], tmp_path, 600, clean_up=ended.append, on_begin=lambda _: interrupter.start()
        )
    interrupter.join()
    assert ended == ["hangs"]
