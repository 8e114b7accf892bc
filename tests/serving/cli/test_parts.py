"""Supervised children: trivial real processes, looked after by hand."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.cli import leftovers
from serving.cli.parts import (
    ALIVE_INTERVAL_S,
    SILENCES,
    Change,
    Part,
    PartError,
    PartEvent,
    PartSpec,
    Supervisor,
    last_lines,
    restart_delay_s,
    trim_log,
)
from serving.cli.platform import MARK_VARIABLE, Layout, Phase, PlatformState
from serving.processes import ProcessRef

MARK = f"mark-of-test-{os.getpid()}"
SLEEP = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
FAMILY = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); {SLEEP}"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 30
    while (left := leftovers.find_marked(MARK)) and time.monotonic() < deadline:
        time.sleep(0.01)  # a killed process takes a moment to go
    assert left == []


def make_spec(folder: Path, name: str, program: str, **fields: object) -> PartSpec:
    log_path = folder / f"{name}.log"
    defaults: dict[str, object] = {
        "is_ready": lambda: "up" in "\n".join(last_lines(log_path)),
        "stop_timeout_s": 5.0,
    }
    return PartSpec(
        name=name,
        command=(sys.executable, "-c", program),
        environment={MARK_VARIABLE: MARK},
        folder=folder,
        log_path=log_path,
        **(defaults | fields),  # type: ignore[arg-type]
    )


def until(supervisor: Supervisor, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        supervisor.tick()
        assert time.monotonic() < deadline


@pytest.fixture
def events() -> list[PartEvent]:
    return []


@pytest.fixture
def supervisor(events: list[PartEvent]) -> Iterator[Supervisor]:
    running = Supervisor(events.append)
    yield running
    running.stop([list(running.parts)])


def test_part_becomes_ready_and_stops(
    supervisor: Supervisor, events: list[PartEvent], tmp_path: Path
) -> None:
    supervisor.start(make_spec(tmp_path, "a", SLEEP))
    until(supervisor, supervisor.are_ready)
    assert [(event.part, event.change) for event in events] == [("a", Change.READY)]
    process = supervisor.refs()["a"]
    supervisor.stop([["a"]])
    assert not process.is_alive()


def test_killed_part_is_restarted_at_once(
    supervisor: Supervisor, events: list[PartEvent], tmp_path: Path
) -> None:
    starts: list[int] = []
    supervisor.start(make_spec(tmp_path, "a", SLEEP, before_start=lambda: starts.append(1)))
    until(supervisor, supervisor.are_ready)
    first = supervisor.refs()["a"]
    os.kill(first.pid, signal.SIGKILL)
    until(supervisor, lambda: len(events) >= 4)
    changes = [event.change for event in events]
    assert changes == [Change.READY, Change.DIED, Change.RESTARTED, Change.READY]
    assert "SIGKILL" in events[1].message
    assert supervisor.refs()["a"] != first
    assert len(starts) == 2


def test_family_of_a_killed_part_is_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(make_spec(tmp_path, "a", FAMILY))
    until(supervisor, lambda: len(leftovers.find_marked(MARK)) == 2)
    before = leftovers.find_marked(MARK)
    os.kill(supervisor.refs()["a"].pid, signal.SIGKILL)
    until(supervisor, lambda: not any(process.is_alive() for process in before))


def test_family_of_a_stopped_part_is_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(make_spec(tmp_path, "a", FAMILY))
    until(supervisor, lambda: len(leftovers.find_marked(MARK)) == 2)
    supervisor.stop([["a"]])


def test_part_that_ignores_sigterm_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(make_spec(tmp_path, "a", STUBBORN, stop_timeout_s=0.1))
    until(supervisor, supervisor.are_ready)
    supervisor.stop([["a"]])
    assert supervisor.parts["a"].process is not None
    assert supervisor.parts["a"].process.returncode == -signal.SIGKILL


def test_parts_stop_group_after_group(supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"
    program = (
        "import os, signal, sys, time\n"
        "def end(*_):\n"
        f"    open({str(order)!r}, 'a').write(sys.argv[1]); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(600)"
    )
    for name in ("back", "front"):
        spec = make_spec(tmp_path, name, program)
        supervisor.start(
            PartSpec(
                name=name,
                command=(*spec.command, f"{name} "),
                environment=spec.environment,
                folder=spec.folder,
                log_path=spec.log_path,
                is_ready=spec.is_ready,
            )
        )
    until(supervisor, supervisor.are_ready)
    supervisor.stop([["front"], ["back"]])
    assert order.read_text() == "front back "


def test_part_that_never_comes_up_is_given_up(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(make_spec(tmp_path, "a", "print('no luck'); raise SystemExit(7)"))
    with pytest.raises(PartError) as caught:
        until(supervisor, supervisor.are_ready)
    assert "code 7" in str(caught.value)
    assert str(tmp_path) in (caught.value.hint or "")
    assert last_lines(tmp_path / "a.log")[-1] == "no luck"


def test_delay_before_a_restart_grows_to_its_bound() -> None:
    delays = [restart_delay_s(deaths) for deaths in range(1, 12)]
    assert delays[:3] == [0.0, 0.5, 1.0]
    assert delays == sorted(delays)
    assert delays[-1] == 8.0


def test_restart_waits_for_its_time(tmp_path: Path) -> None:
    part = Part(make_spec(tmp_path, "a", SLEEP))
    part.deaths, part.start_at_s = 3, 100.0
    assert part.tick(99.9) is None
    assert part.process is None
    event = part.tick(100.0)
    assert event is not None
    assert event.change is Change.RESTARTED
    part.stop()
    part.wait()


def test_part_that_answers_no_more_is_killed_and_restarted(tmp_path: Path) -> None:
    answers = [False, True] + [False] * SILENCES
    spec = make_spec(tmp_path, "a", SLEEP, is_ready=lambda: True, is_alive=lambda: answers.pop(0))
    part = Part(spec)
    part.start(0.0)
    first = part.ref
    seen = [part.tick(1.0)]
    for number in range(len(answers)):
        assert part.tick(ALIVE_INTERVAL_S * (number + 1)) is None, "too soon for a question"
        assert part.tick(1.0 + ALIVE_INTERVAL_S * (number + 1)) is None
    assert answers == []
    assert part.process is not None
    part.process.wait()
    seen += [part.tick(100.0), part.tick(100.0), part.tick(101.0)]
    assert [event and event.change for event in seen] == [
        Change.READY, Change.DIED, Change.RESTARTED, Change.READY
    ]  # fmt: skip
    assert "6 questions for its health unanswered" in (seen[1].message if seen[1] else "")
    assert part.ref != first
    part.stop()
    part.wait()


def test_part_dies_with_its_supervisor(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.serving.cli.test_parts import SLEEP, make_spec\n"
        "from serving.cli.parts import Part\n"
        f"part = Part(make_spec(Path({str(tmp_path)!r}), 'a', SLEEP)); part.start(0.0)\n"
        "print(part.ref.model_dump_json(), flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        child = ProcessRef.model_validate_json(supervisor.stdout.readline())
        assert child.is_alive()
        supervisor.kill()
    assert leftovers.wait_gone(child, 10)


def test_leftovers_of_a_killed_supervisor_are_found_and_ended(tmp_path: Path) -> None:
    """One bears the mark, one only lives in the session of a part that is gone."""
    marked = subprocess.Popen([sys.executable, "-c", SLEEP], env={MARK_VARIABLE: MARK},
                              stdout=subprocess.DEVNULL)  # fmt: skip
    orphaning = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], env={{}},\n"
        "                         stdout=subprocess.DEVNULL)\n"  # it outlives the pipe
        "print(child.pid, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", orphaning], start_new_session=True, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as leader:  # fmt: skip
        assert leader.stdout is not None
        part = ProcessRef.of(leader.pid)
        orphan = ProcessRef.of(int(leader.stdout.readline()))
        assert part is not None
        assert orphan is not None
        leader.kill()
    gone = ProcessRef(pid=2**22 + 1, started=1)
    layout = Layout.of(tmp_path)
    state = PlatformState(
        pid=gone.pid, started=gone.started, phase=Phase.READY, url="", mark=MARK,
        runtime_dir=layout.runtime_dir, ports={}, parts={"ray": part},
    )  # fmt: skip
    assert leftovers.end(state) == 2
    assert not orphan.is_alive()
    assert marked.wait(5) == -signal.SIGTERM


def test_session_of_a_reused_pid_is_not_ours(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEP], start_new_session=True, stdout=subprocess.DEVNULL
    ) as leader:
        today = ProcessRef.of(leader.pid)
        assert today is not None
        earlier = ProcessRef(pid=today.pid, started=today.started - 1)

        def left_by(part: ProcessRef) -> list[ProcessRef]:
            state = PlatformState(
                pid=2**22 + 1, started=1, phase=Phase.READY, url="", mark="nobody's",
                runtime_dir=tmp_path, ports={}, parts={"ray": part},
            )  # fmt: skip
            return list(leftovers.find(state))

        try:
            assert left_by(today) == [today]
            assert left_by(earlier) == []
        finally:
            leader.kill()


def test_log_that_grew_too_long_is_moved_aside(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("x" * 100)
    trim_log(log, longest_bytes=100)
    assert log.stat().st_size == 100
    trim_log(log, longest_bytes=99)
    assert log.stat().st_size == 0
    assert (tmp_path / "a.log.1").stat().st_size == 100
    trim_log(tmp_path / "none.log")
