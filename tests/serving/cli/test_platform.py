"""The folders, the lock and the state file of a platform."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import ConflictError, UnavailableError
from serving.cli.platform import (
    LONGEST_RUNTIME_DIR,
    Layout,
    Phase,
    PlatformState,
    only_one,
    read_state,
    secret,
    write_state,
)
from serving.processes import ProcessRef


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data", tmp_path / "run")


def make_state(layout: Layout, supervisor: ProcessRef) -> PlatformState:
    return PlatformState(
        pid=supervisor.pid,
        started=supervisor.started,
        phase=Phase.READY,
        url="http://127.0.0.1:1",
        mark="m",
        runtime_dir=layout.runtime_dir,
        ports={"gateway": 1},
        parts={},
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_layout_differs_from_folder_to_folder(tmp_path: Path) -> None:
    assert Layout.of(tmp_path / "a").runtime_dir != Layout.of(tmp_path / "b").runtime_dir
    assert Layout.of(tmp_path / "a") == Layout.of(tmp_path / "a")


def test_runtime_folder_stays_short_below_a_long_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 80)))
    assert len(str(Layout.of(tmp_path).runtime_dir)) <= LONGEST_RUNTIME_DIR


def test_folders_are_private(layout: Layout) -> None:
    layout.make()
    assert mode(layout.data_dir) == mode(layout.runtime_dir) == mode(layout.logs_dir) == 0o700


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError) as caught:
        Layout(tmp_path / "file" / "data", tmp_path / "run").make()
    assert "--data-dir" in (caught.value.hint or "")


def test_secret_is_made_once_and_private(tmp_path: Path) -> None:
    first = secret(tmp_path / "s")
    assert len(first) == 64
    assert secret(tmp_path / "s") == first
    assert mode(tmp_path / "s") == 0o600


def test_state_is_read_as_it_was_written(layout: Layout) -> None:
    layout.make()
    assert read_state(layout) is None
    state = make_state(layout, ProcessRef.of_this())
    write_state(layout, state)
    assert read_state(layout) == state
    assert mode(layout.state_file) == 0o600


def test_broken_state_file_counts_as_none(layout: Layout) -> None:
    layout.make()
    layout.state_file.write_text('{"pid": 1')
    assert read_state(layout) is None


def test_second_platform_in_a_folder_is_refused(layout: Layout) -> None:
    layout.make()
    write_state(layout, make_state(layout, ProcessRef.of_this()))
    with only_one(layout):
        with pytest.raises(ConflictError) as caught, only_one(layout):
            pass
        assert str(os.getpid()) in str(caught.value)
        assert "penstock down" in (caught.value.hint or "")
    with only_one(layout):
        pass


def test_process_is_known_by_its_start_time_too() -> None:
    own = ProcessRef.of_this()
    assert own.is_alive()
    assert not ProcessRef(pid=own.pid, started=own.started + 1).is_alive()


def test_zombie_is_no_process_any_more() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.DEVNULL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ProcessRef.of(child.pid) is None
    child.wait()
