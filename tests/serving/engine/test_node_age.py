"""How long a machine has been a node of Ray, from a played and from the real /proc."""

import os
from pathlib import Path

import pytest

from serving.engine.node_age import node_age_s

TICKS = os.sysconf("SC_CLK_TCK")


def process(proc: Path, pid: int, name: str, parent: int, started_s: float) -> None:
    (proc / str(pid)).mkdir()
    between = " ".join(["0"] * 17)
    stat = f"{pid} ({name}) S {parent} {between} {int(started_s * TICKS)} 0 0\n"
    (proc / str(pid) / "stat").write_text(stat)


def test_age_is_that_of_the_raylet_above_the_process(tmp_path: Path) -> None:
    process(tmp_path, 7, "ray::(odd) name", 5, 90.0)
    process(tmp_path, 5, "raylet", 1, 60.0)
    assert node_age_s(7, 100.0, tmp_path) == pytest.approx(40.0)


def test_raylet_is_found_behind_a_wrapper(tmp_path: Path) -> None:
    process(tmp_path, 7, "ray::IDLE", 6, 90.0)
    process(tmp_path, 6, "bash", 5, 80.0)
    process(tmp_path, 5, "raylet", 1, 60.0)
    assert node_age_s(7, 100.0, tmp_path) == pytest.approx(40.0)


def test_age_is_not_told_where_no_raylet_is_above(tmp_path: Path) -> None:
    process(tmp_path, 7, "python", 1, 90.0)
    process(tmp_path, 1, "init", 0, 0.0)
    assert node_age_s(7, 100.0, tmp_path) is None


def test_clock_that_makes_no_sense_tells_no_age(tmp_path: Path) -> None:
    process(tmp_path, 5, "raylet", 1, 160.0)
    assert node_age_s(5, 100.0, tmp_path) is None


def test_process_of_no_ray_has_no_age() -> None:
    assert node_age_s() is None
