"""The launcher with real processes that are not vLLM: births, leases, deaths."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from models.errors import UnreachableError
from serving.engine.launch_protocol import (
    Event,
    Exited,
    Forked,
    Reached,
    Refused,
    SpawnRequest,
)
from serving.engine.launcher_client import Lease, SocketLauncher
from serving.engine.standing import count_oom_kills
from serving.protocol import StartPhase
from tests.processes import still_alive

PATIENCE_S = 60


@dataclass
class Process:
    """A running launcher."""

    popen: subprocess.Popen[bytes]
    socket: Path

    @property
    def client(self) -> SocketLauncher:
        return SocketLauncher(self.socket)


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Process]:
    process = start(tmp_path / "l.sock")
    yield process
    process.popen.terminate()
    assert process.popen.wait(PATIENCE_S) == 0 or process.popen.returncode == -signal.SIGKILL


def start(path: Path, *args: str) -> Process:
    command = [sys.executable, "-m", "tests.serving.engine.stub_launcher", str(path), *args]
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb") as output:
        popen = subprocess.Popen(command, stdout=write_fd)
        os.close(write_fd)
        first_line = output.readline()
    if first_line != b"listening\n":
        popen.kill()
        popen.wait()
        raise AssertionError("the launcher did not start")
    return Process(popen, path)


@dataclass
class Engine:
    """A stub engine that has become ready."""

    lease: Lease
    events: AsyncIterator[Event]
    forked: Forked
    processes: list[psutil.Process]
    scratch: Path

    async def rest(self) -> list[Event]:
        async with asyncio.timeout(PATIENCE_S):
            return [event async for event in self.events]

    def assert_gone(self) -> None:
        """Within PATIENCE_S."""
        assert still_alive(self.processes, PATIENCE_S) == []


@asynccontextmanager
async def engine(
    launcher: Process, *args: str, engine_id: str = "e1", **fields: object
) -> AsyncIterator[Engine]:
    log_path = launcher.socket.with_name(f"{engine_id}.log")
    lease = await launcher.client.spawn(request(log_path, *args, engine_id=engine_id, **fields))
    try:
        async with asyncio.timeout(PATIENCE_S):
            events = lease.events()
            forked = await anext(events)
            assert isinstance(forked, Forked)
            marks = [await anext(events), await anext(events)]
        assert [m.phase for m in marks if isinstance(m, Reached)] == [
            StartPhase.WEIGHTS,
            StartPhase.ENGINE_READY,
        ]
        _, first, second, _, scratch = log_path.read_text().split()
        processes = [psutil.Process(int(first)), psutil.Process(int(second))]
        yield Engine(lease, events, forked, processes, Path(scratch))
    finally:
        await lease.close()


def request(log_path: Path, *args: str, **fields: object) -> SpawnRequest:
    return SpawnRequest.model_validate(
        {"engine_id": "e1", "args": args, "token": "t0", "log_path": log_path, "memory_gib": 0.01}
        | fields
    )


async def outcome(launcher: Process, spawn: SpawnRequest) -> Event:
    lease = await launcher.client.spawn(spawn)
    async with asyncio.timeout(PATIENCE_S):
        events = [event async for event in lease.events()]
    await lease.close()
    return events[-1]


async def test_hello_tells_build_and_engines(launcher: Process) -> None:
    async with engine(launcher, engine_id="e7"):
        hello = await launcher.client.hello()
    assert (hello.pid, hello.build) == (launcher.popen.pid, "stub 1")
    assert hello.engines == ("e7",)


async def test_engine_listens_at_its_port_as_a_child_with_the_token(launcher: Process) -> None:
    async with engine(launcher) as born:
        reader, writer = await asyncio.open_connection("127.0.0.1", born.forked.port)
        assert await reader.readline() == b"t0\n"
        writer.close()
        first = born.processes[0]
        assert first.ppid() == launcher.popen.pid
        assert os.getpgid(first.pid) == os.getsid(first.pid) == first.pid
        assert Path(f"/proc/{first.pid}/oom_score_adj").read_text() == "500\n"


async def test_socket_is_open_to_its_owner_alone(launcher: Process) -> None:
    assert launcher.socket.stat().st_mode & 0o777 == 0o600


async def test_giving_up_the_lease_ends_the_whole_group_and_says_so(launcher: Process) -> None:
    async with engine(launcher) as born:
        born.lease.give_up()
        exited = (await born.rest())[-1]
        assert isinstance(exited, Exited)
        assert exited.cause == "the engine was told to end: the host gave it up"
        born.assert_gone()
        assert not born.scratch.exists()


async def test_broken_connection_ends_the_engine(launcher: Process) -> None:
    async with engine(launcher) as born:
        await born.lease.close()
        born.assert_gone()


async def test_engine_deaf_to_sigterm_is_killed(launcher: Process) -> None:
    async with engine(launcher, "stubborn") as born:
        born.lease.give_up()
        exited = (await born.rest())[-1]
        assert isinstance(exited, Exited) and exited.signal == "SIGKILL"
        assert not exited.killed  # by the launcher itself, on request
        born.assert_gone()


async def test_killed_first_process_takes_the_second_along(launcher: Process) -> None:
    async with engine(launcher) as born:
        born.processes[0].kill()
        exited = (await born.rest())[-1]
        assert isinstance(exited, Exited)
        assert (exited.signal, exited.cause) == ("SIGKILL", "the engine was killed (SIGKILL)")
        assert exited.killed or count_oom_kills() is None
        born.assert_gone()


async def test_killed_launcher_takes_all_engines_along(launcher: Process) -> None:
    async with engine(launcher, engine_id="e1") as one, engine(launcher, engine_id="e2") as two:
        launcher.popen.kill()
        one.assert_gone()
        two.assert_gone()
        assert await one.rest() == []


async def test_launcher_and_first_process_killed_together_leave_nothing(
    launcher: Process,
) -> None:
    async with engine(launcher) as born:
        os.kill(launcher.popen.pid, signal.SIGSTOP)  # so that it cannot clean up
        born.processes[0].kill()
        launcher.popen.kill()
        born.assert_gone()


async def test_stopped_launcher_ends_its_engines_and_removes_its_files(launcher: Process) -> None:
    async with engine(launcher) as born:
        launcher.popen.terminate()
        exited = (await born.rest())[-1]
        assert isinstance(exited, Exited)
        assert exited.cause == "the engine was told to end: the launcher stops"
        assert launcher.popen.wait(PATIENCE_S) == 0
        born.assert_gone()
        assert not born.scratch.parent.exists()
        assert not launcher.socket.exists()


async def test_killed_launcher_can_be_followed_by_another_at_the_same_socket(
    launcher: Process,
) -> None:
    async with engine(launcher) as born:
        launcher.popen.kill()
        launcher.popen.wait(PATIENCE_S)
        born.assert_gone()
        with pytest.raises(UnreachableError):
            await launcher.client.hello()
        second = start(launcher.socket)
        try:
            assert (await second.client.hello()).pid == second.popen.pid
            assert not born.scratch.parent.exists()
        finally:
            second.popen.terminate()
            second.popen.wait(PATIENCE_S)


async def test_error_of_the_engine_comes_back_with_its_hint(launcher: Process) -> None:
    exited = await outcome(launcher, request(launcher.socket.with_name("e.log"), "fail"))
    assert isinstance(exited, Exited)
    assert (exited.code, exited.cause, exited.hint) == (1, "no such argument", "read the manual")


async def test_exception_of_the_engine_comes_back_as_one_sentence(launcher: Process) -> None:
    log_path = launcher.socket.with_name("e.log")
    exited = await outcome(launcher, request(log_path, "crash"))
    assert isinstance(exited, Exited)
    assert (exited.code, exited.cause) == (1, "the engine broke")
    assert "Traceback" in log_path.read_text()


async def test_engine_that_dies_during_its_start_is_reported(launcher: Process) -> None:
    exited = await outcome(launcher, request(launcher.socket.with_name("e.log"), "die"))
    assert isinstance(exited, Exited) and exited.signal == "SIGKILL"


async def test_engine_too_large_for_the_node_is_refused(launcher: Process) -> None:
    spawn = request(launcher.socket.with_name("e.log"), memory_gib=8192.0)
    refused = await outcome(launcher, spawn)
    assert isinstance(refused, Refused)
    assert refused.reason.startswith("the engine needs 8192 GiB of memory, but ")
    assert refused.hint == "stop another model, or lower resources.memory_gib"


async def test_log_that_cannot_be_written_is_refused(launcher: Process) -> None:
    refused = await outcome(launcher, request(Path("/proc/no/such/e.log")))
    assert isinstance(refused, Refused)
    assert refused.reason.startswith("the engine cannot be started: ")


async def test_engine_waits_for_a_gpu_until_its_holder_is_gone(launcher: Process) -> None:
    async with engine(launcher, engine_id="e1", gpus=("0", "1")) as first:
        second = await launcher.client.spawn(
            request(launcher.socket.with_name("e2.log"), engine_id="e2", gpus=("1",))
        )
        assert (await launcher.client.hello()).engines == ("e1",)
        first.lease.give_up()
        async with asyncio.timeout(PATIENCE_S):
            assert isinstance(await anext(second.events()), Forked)
        assert (await launcher.client.hello()).engines == ("e2",)
        await second.close()


async def test_nonsense_is_refused(launcher: Process) -> None:
    reader, writer = await asyncio.open_unix_connection(launcher.socket)
    writer.write(b'{"op": "dance"}\n')
    assert b"not a request to a launcher" in await reader.readline()
    assert await reader.read() == b""
    writer.close()


async def test_two_launchers_cannot_share_a_socket(launcher: Process) -> None:
    command = [sys.executable, "-m", "tests.serving.engine.stub_launcher", str(launcher.socket)]
    second = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False)
    assert second.returncode != 0
    assert b"another launcher serves" in second.stderr
    assert (await launcher.client.hello()).pid == launcher.popen.pid
