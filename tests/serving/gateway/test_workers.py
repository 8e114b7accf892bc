"""`penstock gateway`: workers behind one socket, replaced under load, and their supervisor."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr

from models.errors import NotFoundError
from serving.cli.leftovers import wait_gone
from serving.gateway.handover import Handover, handover_of
from serving.gateway.workers import PID_FILE, reload
from serving.processes import ProcessRef
from serving.settings import GatewaySettings
from tests.processes import is_alive, pid_is_alive
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import chat
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine
from tests.serving.gateway.test_app import HEADERS, line_with, settings_of

PENSTOCK = Path(sys.executable).with_name("penstock")
PATH = "/v1/chat/completions"


class Fleet:
    """A `penstock gateway` that runs."""

    def __init__(self, process: asyncio.subprocess.Process, said: Mapping[str, object]) -> None:
        self.process = process
        self.url = str(said["url"])
        self.pids = said["pids"]

    async def workers(self) -> set[int]:
        children = psutil.Process(self.process.pid).children()
        return {child.pid for child in children if is_alive(child)}  # one may yet have to be reaped

    async def said(self, event: str) -> Mapping[str, object]:
        return await line_with(self.process, event)

    async def gone(self, pids: set[int]) -> None:
        async with asyncio.timeout(60):
            while any(pid_is_alive(pid) for pid in pids):  # noqa: ASYNC110, no event tells
                await asyncio.sleep(0.02)


@asynccontextmanager
async def fleet(
    count: int, settings: dict[str, str], command: Sequence[str | Path] = (PENSTOCK, "gateway")
) -> AsyncIterator[Fleet]:
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("PENSTOCK_")}
    env = inherited | {f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *command, "--workers", str(count), env=env, stderr=asyncio.subprocess.PIPE,
        limit=2**26,  # all that is said is taken in, asked for or not: a full pipe stops workers
    )  # fmt: skip
    try:
        yield Fleet(process, await line_with(process, "serving"))
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


@pytest.fixture
def served(controller: FakeController, engine: FakeEngine, tmp_path: Path) -> dict[str, str]:
    engine.slots = 64
    controller.set_routes(model("demo", engine.route))
    return settings_of(controller, tmp_path)


async def test_reload_under_load_refuses_no_connection_and_cuts_no_stream(
    served: dict[str, str], engine: FakeEngine
) -> None:
    engine.script.append(fake_engine.stalls_mid_stream)
    async with fleet(2, served) as running:
        before = await running.workers()
        assert len(before) == 2
        done = asyncio.Event()
        async with httpx.AsyncClient(base_url=running.url, headers=HEADERS, timeout=20) as client:
            async with client.stream("POST", PATH, json=chat(stream=True)) as long_one:
                parts = long_one.aiter_bytes()
                got = await anext(parts)
                load = [asyncio.create_task(_ask(running.url, done, fresh)) for fresh in (0, 1, 1)]
                running.process.send_signal(signal.SIGHUP)
                await running.said("reloaded")
                await asyncio.sleep(0.3)
                after = await running.workers() - before
                assert len(after) == 2
                engine.go_on.set()
                got += b"".join([part async for part in parts])
            await running.gone(before)
            done.set()
            await asyncio.gather(*load)
        assert got == b"".join(fake_engine.STREAM)
        assert await running.workers() == after
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await running.process.wait() == 0
        await running.gone(after)


async def _ask(url: str, done: asyncio.Event, fresh: int) -> None:
    """Asks until it is told to stop, thrice at least, on new connections if `fresh`; every answer
    must be good."""
    answered = 0
    headers = HEADERS | ({"Connection": "close"} if fresh else {})
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client:
        while not done.is_set() or answered < 3:
            answer = await client.post(PATH, json=chat(stream=True))
            assert answer.content == b"".join(fake_engine.STREAM)
            answered += 1


async def test_worker_that_dies_is_replaced(served: dict[str, str]) -> None:
    async with fleet(1, served) as running:
        (dead,) = await running.workers()
        os.kill(dead, signal.SIGKILL)
        await running.said("worker_died")
        async with asyncio.timeout(60):
            while await running.workers() <= {dead}:  # noqa: ASYNC110, no event tells
                await asyncio.sleep(0.05)
        async with httpx.AsyncClient(base_url=running.url, headers=HEADERS, timeout=20) as client:
            assert (await client.post(PATH, json=chat())).status_code == 200


SHORT = """
import asyncio, sys
from serving.gateway import workers
from serving.logs import configure
from serving.settings import GatewaySettings

configure("gateway")
workers.LOOK_S = workers.RESTART_S = 0.02
*command, _, count = sys.argv[1:]
asyncio.run(workers.Workers(GatewaySettings.load(), int(count), command).run())
"""
"""`penstock gateway` with short times and workers of another kind."""

MUTE = """
import os, sys, time

folder, (_, ready, life) = sys.argv[1], map(int, sys.argv[-1].split(","))
try:
    os.mkdir(folder + "/mute")
    while len(os.listdir(folder)) < 3:
        time.sleep(0.01)
    os.write(ready, b"1")
except FileExistsError:
    os.write(ready, b"1")
    os.close(ready)
    os.mkdir(f"{folder}/{os.getpid()}")
os.read(life, 1)
"""
"""A worker that beats no more. The first hangs, once two others are there, which are as those of
the version before: without a pulse."""


async def test_worker_that_hangs_is_replaced_and_the_others_are_left_alone(tmp_path: Path) -> None:
    settings = {
        "gateway_port": "0", "gateway_state_dir": str(tmp_path), "internal_token": "t",
    }  # fmt: skip
    (folder := tmp_path / "workers").mkdir()
    worker = (sys.executable, "-c", MUTE, folder)
    async with fleet(3, settings, (sys.executable, "-c", SHORT, *worker)) as running:
        hung = int(str((await running.said("worker_hangs"))["pid"]))
        died = await running.said("worker_died")
        assert (died["pid"], died["exit_code"]) == (hung, -signal.SIGKILL)
        before = set(map(int, running.pids))
        async with asyncio.timeout(60):
            while len(after := await running.workers()) != 3 or hung in after:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert before - {hung} < after


async def test_workers_do_not_outlive_their_supervisor(served: dict[str, str]) -> None:
    async with fleet(1, served) as running:
        workers = await running.workers()
        running.process.kill()
        await running.gone(workers)


async def test_supervisor_whose_workers_cannot_start_says_so(tmp_path: Path) -> None:
    settings = {"gateway_port": "0", "gateway_state_dir": str(tmp_path)}  # no internal token
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("PENSTOCK_")}
    env = inherited | {f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        PENSTOCK, "gateway", env=env, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"PENSTOCK_INTERNAL_TOKEN" in said


@pytest.mark.parametrize("content", [None, "", "x", "1", str(2**22)])
def test_reload_without_a_gateway_says_so(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / PID_FILE).write_text(content)
    settings = GatewaySettings(internal_token=SecretStr("t"), gateway_state_dir=tmp_path)
    with pytest.raises(NotFoundError):
        reload(settings)


@pytest.fixture
def bystander() -> Iterator[ProcessRef]:
    """A process that SIGHUP ends, and whose command line holds the word."""
    program = (
        "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        "print('ready', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, "gateway"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        found = ProcessRef.of(process.pid)
        assert found is not None
        yield found
        process.kill()


@pytest.mark.parametrize("line", ["{pid} {started}\n", "{pid}\n"])
def test_reload_tells_the_process_that_the_file_names(
    tmp_path: Path, bystander: ProcessRef, line: str
) -> None:
    (tmp_path / PID_FILE).write_text(line.format(**bystander.model_dump()))
    settings = GatewaySettings(internal_token=SecretStr("t"), gateway_state_dir=tmp_path)
    assert reload(settings) == bystander.pid
    assert wait_gone(bystander, 30)


def test_reload_spares_a_later_process_of_the_same_pid(
    tmp_path: Path, bystander: ProcessRef
) -> None:
    (tmp_path / PID_FILE).write_text(f"{bystander.pid} {bystander.started - 1}\n")
    settings = GatewaySettings(internal_token=SecretStr("t"), gateway_state_dir=tmp_path)
    with pytest.raises(NotFoundError):
        reload(settings)
    assert bystander.is_alive()


def test_handover_survives_the_command_line() -> None:
    handover = Handover(3, 4, 5)
    assert handover_of(handover.arguments()) == handover
    assert handover_of([]) is None
    with pytest.raises(ValueError, match="--worker"):
        handover_of(["--what"])
