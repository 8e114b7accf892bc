"""The cold-start bench tells what it found, whatever becomes of its parts."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import bench_cold_start
from scripts.cold_start.parts import End, Interrupted, interruptible, run_parts
from scripts.cold_start.processes import family, maps_any, parent, private_mib, resident_mib
from scripts.cold_start.report import Found, json_line, tell
from scripts.cold_start.servers import EAGER, Servers
from scripts.cold_start.wakes import Wake, keep
from scripts.cold_start.weights import LARGE

START = {"marks": [{"phase": "demand_seen", "at_s": 0.0}, {"phase": "routed", "at_s": 0.4}]}


def wake(took_s: float | None, model: str = "demo-1", private_mib: float | None = 200.0) -> Wake:
    start = None if took_s is None else START
    return Wake(model, took_s, start, private_mib, 650.0, 1.5, 0, hosts_free=2, hosts=2)


def test_line_bears_median_speedup_memory_and_what_was_checked_before_each_wake() -> None:
    found = Found(
        wakes=[wake(0.4), wake(0.6, private_mib=210.0), wake(0.5), wake(0.9, LARGE, 400.0)],
        servers_s={"eager": 25.04, "default": 38.0, "large-eager": 27.0},
        ends=[End("wakes", 90.0), End("eager", 50.0)],
    )
    line = json_line(found)
    assert line["bench"] == "cold-start"
    assert (line["median_s"], line["max_s"], line["wakes"], line["lost"]) == (0.5, 0.6, 3, 0)
    assert (line["server_eager_s"], line["server_default_s"]) == (25.0, 38.0)
    assert line["speedup"] == 50.1
    assert line["large"]["speedup"] == 30.0
    assert line["large"]["server_default_s"] is None
    assert (line["launcher_mib"], line["engine_private_mib"]) == (650, 210), "of the demo alone"
    checked = line["checked_before"], line["mapped_before"], line["hosts_taken_before"]
    assert checked == (4, 0, 0)
    assert line["parts_s"] == {"wakes": 90.0, "eager": 50.0}
    assert found.is_well


def test_lost_wake_counts_and_is_no_time() -> None:
    found = Found(wakes=[wake(0.4), wake(None, private_mib=None)])
    line = json_line(found)
    assert (line["median_s"], line["wakes"], line["lost"]) == (0.4, 2, 1)
    assert not found.is_well


def test_failed_part_is_named_and_the_next_one_runs(capsys: pytest.CaptureFixture[str]) -> None:
    found = Found(left_out=("large-default",))
    run: list[str] = []

    def fails() -> None:
        found.wakes.append(wake(0.5))
        raise RuntimeError("not all is asleep")

    run_parts({"wakes": fails, "eager": lambda: run.append("eager")}, found.ends)
    tell(found)
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert run == ["eager"]
    assert line["failed"] == {"wakes": "RuntimeError: not all is asleep"}
    assert list(line["parts_s"]) == ["wakes", "eager"]
    assert line["left_out"] == ["large-default"]
    assert line["median_s"] == 0.5, "what was found before it failed"
    assert not found.is_well


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_tells_what_it_had(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    found, before = Found(), signal.getsignal(number)

    def interrupted() -> None:
        found.wakes.append(wake(0.5))
        os.kill(os.getpid(), number)
        signal.sigtimedwait([], 5)

    work: dict[str, Callable[[], None]] = {"wakes": interrupted, "eager": pytest.fail}
    with pytest.raises(Interrupted), interruptible():
        run_parts(work, found.ends)
    assert signal.getsignal(number) is before
    tell(found)
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["failed"] == {"wakes": f"ended by {number.name}"}
    assert (line["wakes"], line["speedup"], line["server_eager_s"]) == (1, None, None)


def test_report_of_nothing_is_a_line_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Found(ends=[End("wakes", 1.0, "OSError: full")]))
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["median_s"], line["launcher_mib"], line["load"]) == (None, None, None)


def test_parts_are_chosen_by_name_and_stay_in_their_order() -> None:
    options = bench_cold_start.parse(["--parts", "eager", "wakes"])
    assert [part for part in bench_cold_start.PARTS if part in options.parts] == ["wakes", "eager"]
    assert bench_cold_start.parse([]).parts == bench_cold_start.PARTS


def test_wakes_are_kept_in_a_file_with_their_checks(tmp_path: Path) -> None:
    keep([wake(0.4), wake(0.6)], tmp_path / "wakes.json")
    rows = json.loads((tmp_path / "wakes.json").read_text("utf-8"))
    assert [row["took_s"] for row in rows] == [0.4, 0.6]
    assert [(row["processes_that_map_weights"], row["hosts_free"]) for row in rows] == [(0, 2)] * 2


def test_caches_are_warmed_once_for_a_class_and_once_for_what_is_compiled() -> None:
    started: list[tuple[str, ...]] = []

    def start_s(folder: Path, *more: str) -> float:
        started.append((folder.name, *more))
        return 20.0

    servers = Servers(start_s)
    demo, large = Path("demo-0"), Path(LARGE)
    for folder, more in ((demo, (EAGER,)), (demo, ()), (large, (EAGER,)), (large, ())):
        assert servers.start_s(folder, *more) == 20.0
    assert started == [
        ("demo-0", EAGER), ("demo-0", EAGER),
        ("demo-0",), ("demo-0",),
        (LARGE, EAGER),
        (LARGE,), (LARGE,),
    ]  # fmt: skip


def test_process_that_is_gone_maps_nothing_and_has_no_memory() -> None:
    with subprocess.Popen(["true"]) as process:
        gone = process.pid
    assert not maps_any(gone, Path("/"))
    assert (private_mib(gone), resident_mib(gone), family(gone), parent(gone)) == (0, 0, [], None)


def test_own_memory_and_parent_are_seen() -> None:
    me = os.getpid()
    assert private_mib(me) > 0
    assert resident_mib(me) > 0
    assert parent(me) == os.getppid()
