"""Standbys in the place of forks, with real processes that are not vLLM."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from models.errors import UnavailableError
from serving.engine.launch_protocol import Exited, SpawnRequest
from serving.engine.standby import STILLBORN_MAX, StandbyPool
from serving.engine.ways import check_memory, choose_way
from tests.processes import still_alive
from tests.serving.engine.test_launcher import PATIENCE_S, Process, engine, request, start

OBSTACLE = "CUDA is initialised in the launcher"


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Process]:
    process = start(tmp_path / "l.sock", "2", OBSTACLE)
    yield process
    process.popen.terminate()
    process.popen.wait(PATIENCE_S)


async def warm(launcher: Process, number: int = 2) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await launcher.client.hello()).standbys < number:  # noqa: ASYNC110, it tells no one
            await asyncio.sleep(0.02)


def standbys(launcher: Process) -> list[psutil.Process]:
    children = psutil.Process(launcher.popen.pid).children()
    return [child for child in children if "stub_standby" in " ".join(child.cmdline())]


async def test_standby_becomes_the_engine_where_no_fork_is_possible(launcher: Process) -> None:
    await warm(launcher)
    waiting = {process.pid for process in standbys(launcher)}
    async with engine(launcher) as born:
        assert born.forked.mode == "standby"
        assert born.forked.pid in waiting
        first = born.processes[0]
        assert os.getpgid(first.pid) == os.getsid(first.pid) == first.pid
        reader, writer = await asyncio.open_connection("127.0.0.1", born.forked.port)
        assert await reader.readline() == b"t0\n"
        writer.close()
        born.lease.give_up()
        assert isinstance((await born.rest())[-1], Exited)
        born.assert_gone()
        assert not born.scratch.exists()


async def test_used_standby_is_replaced(launcher: Process) -> None:
    await warm(launcher)
    async with engine(launcher) as born:
        born.lease.give_up()
        await born.rest()
        await warm(launcher)
        assert born.forked.pid not in {process.pid for process in standbys(launcher)}


async def test_engine_may_ask_for_a_standby_though_a_fork_is_possible(tmp_path: Path) -> None:
    process = start(tmp_path / "l.sock", "1")
    try:
        await warm(process, 1)
        async with engine(process, engine_id="a") as forked:
            assert forked.forked.mode == "fork"
        async with engine(process, engine_id="b", mode="standby") as called:
            assert called.forked.mode == "standby"
    finally:
        process.popen.terminate()
        process.popen.wait(PATIENCE_S)


async def test_killed_launcher_takes_engines_and_standbys_along(launcher: Process) -> None:
    await warm(launcher)
    async with engine(launcher) as born:
        waiting = standbys(launcher)
        launcher.popen.kill()
        born.assert_gone()
        assert still_alive(waiting, PATIENCE_S) == []


async def test_stopped_launcher_ends_its_standbys(launcher: Process) -> None:
    await warm(launcher)
    waiting = standbys(launcher)
    launcher.popen.send_signal(signal.SIGTERM)
    launcher.popen.wait(PATIENCE_S)
    assert still_alive(waiting, PATIENCE_S) == []


def test_pool_stops_making_standbys_that_never_get_warm() -> None:
    pool = StandbyPool(1, ("/bin/false",))
    made = []
    for _ in range(STILLBORN_MAX + 2):
        pool.fill()
        if (standby := pool._waiting[0] if pool._waiting else None) is not None:
            os.waitpid(standby.pid, 0)
            made.append(standby.pid)
    assert len(made) == STILLBORN_MAX
    assert pool.take() is None


def asked(mode: str) -> SpawnRequest:
    return request(Path("/dev/null"), mode=mode)


@pytest.mark.parametrize(
    ("mode", "obstacle", "has_standby", "way"),
    [
        ("auto", None, True, "fork"),
        ("auto", OBSTACLE, True, "standby"),
        ("auto", OBSTACLE, False, "exec"),
        ("standby", None, True, "standby"),
        ("standby", None, False, "exec"),
        ("exec", None, True, "exec"),
        ("fork", None, False, "fork"),
    ],
)
def test_way_is_the_one_asked_for_or_the_fastest(
    mode: str, obstacle: str | None, has_standby: bool, way: str
) -> None:
    assert choose_way(asked(mode), obstacle, has_standby=has_standby) == way


def test_fork_that_is_not_possible_is_refused() -> None:
    with pytest.raises(UnavailableError, match="CUDA"):
        choose_way(asked("fork"), OBSTACLE, has_standby=True)


def test_memory_that_is_not_there_is_told_in_numbers() -> None:
    with pytest.raises(UnavailableError, match=r"needs 0.01 GiB of memory, but 0.0 GiB"):
        check_memory(asked("auto"), 0.001)
