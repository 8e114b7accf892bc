"""`up` and `down` as far as no part is started; the rest is tested on a real platform."""

import io
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from models.errors import UnavailableError
from serving.cli import output, up
from serving.cli.parts import Change, PartEvent
from serving.cli.platform import (
    MARK_VARIABLE,
    Layout,
    Phase,
    PlatformState,
    only_one,
    write_state,
)
from serving.cli.session import Started
from serving.engine.nvml import Nvml
from serving.processes import ProcessRef
from tests.serving.cli.conftest import Run
from tests.serving.engine.fake_nvml import Device, FakeNvml

Memory = namedtuple("Memory", "available")


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout.of(tmp_path / "data")
    layout.make()
    yield layout
    shutil.rmtree(layout.runtime_dir, ignore_errors=True)


def test_port_in_use_is_told_before_anything_starts(run: Run, layout: Layout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcome = run("up", "--port", port, "--data-dir", str(layout.data_dir))
    assert outcome.code == 5
    assert f"port {port} is in use" in outcome.err
    assert "hint: " in outcome.err
    assert not layout.state_file.exists()
    assert not layout.runtime_dir.exists()


def test_failure_of_a_detached_platform_is_that_of_the_command(run: Run, layout: Layout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcome = run("up", "--detach", "--port", port, "--data-dir", str(layout.data_dir))
    assert outcome.code == 5
    assert f"port {port} is in use" in outcome.err


def test_second_platform_in_a_folder_is_refused(run: Run, layout: Layout) -> None:
    with only_one(layout):
        outcome = run("up", "--port", "0", "--data-dir", str(layout.data_dir))
    assert outcome.code == 5
    assert "runs in" in outcome.err


def test_little_memory_is_told(run: Run, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory(1 << 30))
    outcome = run("up", "--data-dir", str(layout.data_dir))
    assert outcome.code == 6
    assert "memory" in outcome.err
    assert "hint: " in outcome.err


def test_down_with_nothing_running_says_so(run: Run) -> None:
    outcome = run("down", "--data-dir", "nowhere")
    assert outcome.code == 0
    assert "no platform runs" in outcome.err


def test_down_ends_what_a_killed_supervisor_left(run: Run, layout: Layout) -> None:
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], env={MARK_VARIABLE: "left-behind"}
    )
    deadline_s = time.monotonic() + 60
    while not psutil.Process(left.pid).environ():  # the kernel is about to show it
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    own = ProcessRef.of_this()
    state = PlatformState(
        pid=own.pid, started=own.started - 1, phase=Phase.READY, url="http://127.0.0.1:1",
        mark="left-behind", runtime_dir=layout.runtime_dir, ports={}, parts={},
    )  # fmt: skip
    write_state(layout, state)
    outcome = run("down", "--data-dir", str(layout.data_dir))
    assert outcome.code == 0
    assert "ended 1 processes" in outcome.err
    assert left.wait(60) == -signal.SIGTERM
    assert not layout.state_file.exists()
    assert not layout.runtime_dir.exists()


def test_summary_shows_new_keys_once(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    url = "http://127.0.0.1:8000"
    up._print_summary(Started(url, 9.0, "pa-new", "pk-new", "guide", None), layout)
    told = capsys.readouterr().out
    assert "export PENSTOCK_ADMIN_KEY=pa-new" in told
    assert "Bearer pk-new" in told
    assert f"curl -N {url}/v1/chat/completions" in told
    up._print_summary(Started(url, 9.0, None, None, "guide", None), layout)
    told = capsys.readouterr().out
    assert "Bearer $PENSTOCK_API_KEY" in told
    assert "export" not in told


def test_progress_survives_its_terminal(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("sys.stderr", Gone())
    assert output.stderr().file is sys.stderr
    reporter = up._reporter(layout, lambda _: None)
    reporter.line("stopping")
    reporter.event(PartEvent("ray", Change.DIED, 1.0, "ended by signal SIGKILL"))


def test_gpus_of_this_machine_make_a_pool_of_hosts_with_one_each() -> None:
    assert up.gpu_pool(Nvml(FakeNvml(Device(), Device())), 2) == "h200x1"


@pytest.mark.parametrize(
    ("nvml", "said"),
    [
        (None, "1 GPUs are asked for, and NVIDIA's driver tells of 0"),
        (Nvml(FakeNvml()), "tells of 0"),
        (Nvml(FakeNvml(Device(name=b"Some Card"))), "has no Some Card"),
    ],
    ids=["no driver", "too few", "unknown"],
)
def test_gpus_that_are_not_there_are_refused(nvml: Nvml | None, said: str) -> None:
    with pytest.raises(UnavailableError, match=said):
        up.gpu_pool(nvml, 1)
