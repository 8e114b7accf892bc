"""The pulse by which a supervisor tells a worker that hangs from one that serves."""

import asyncio
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from serving.gateway import pulse as pulses
from serving.gateway.handover import READY, Handover
from serving.gateway.pulse import SILENCES, Pulse, beat
from tests.serving.gateway.conftest import until
from tests.serving.gateway.fake_controller import FakeController
from tests.serving.gateway.test_app import settings_of


async def heard() -> None:
    """Lets what is in a pipe arrive."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_worker_that_beats_never_hangs_and_one_that_stops_does_after_some_looks() -> None:
    read_end, write_end = os.pipe()
    pulse = await Pulse.of(read_end)
    assert not await pulse.ready(0.001)
    for _ in range(3 * SILENCES):
        os.write(write_end, READY)
        await heard()
        assert not pulse.look()
    assert await pulse.ready(0.0)
    assert [pulse.look() for _ in range(SILENCES)] == [False] * (SILENCES - 1) + [True]
    os.write(write_end, READY)
    await heard()
    assert not pulse.look(), "it was slow and no more"
    os.close(write_end)
    pulse.close()


async def test_worker_that_closes_its_end_is_not_judged() -> None:
    """As one of the version before does, and one that is about to end."""
    read_end, write_end = os.pipe()
    pulse = await Pulse.of(read_end)
    os.write(write_end, READY)
    os.close(write_end)
    assert await pulse.ready(60.0)
    await heard()
    assert not any(pulse.look() for _ in range(3 * SILENCES))
    pulse.close()


async def test_worker_that_ends_before_it_serves_is_not_ready() -> None:
    read_end, write_end = os.pipe()
    pulse = await Pulse.of(read_end)
    os.close(write_end)
    assert not await pulse.ready(60.0)
    pulse.close()


async def test_worker_beats_for_as_long_as_somebody_listens_and_never_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulses, "BEAT_S", 0.0)
    read_end, write_end = os.pipe()
    capacity = fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    beating = asyncio.create_task(beat(write_end))
    for _ in range(capacity + 10):  # nobody reads, and our loop turns
        await asyncio.sleep(0)
    assert not beating.done()
    os.close(read_end)  # as a supervisor of the version before does
    await beating


async def test_gateway_beats_and_is_found_to_hang_when_it_is_stopped(
    controller: FakeController, tmp_path: Path
) -> None:
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("PENSTOCK_")}
    settings = settings_of(controller, tmp_path)
    env = inherited | {f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}
    read_end, write_end = os.pipe()
    life, life_end = os.pipe()
    pulse = await Pulse.of(read_end)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        handover = Handover(listening.fileno(), write_end, life)
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "serving.gateway.app", *handover.arguments(),
            env=env, pass_fds=(handover.listening, handover.ready, handover.life),
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        os.close(write_end)
        try:
            assert await pulse.ready(60.0)
            await until(lambda: pulse.beats > 1)
            worker.send_signal(signal.SIGSTOP)
            stopped = psutil.Process(worker.pid)
            await until(lambda: stopped.status() == psutil.STATUS_STOPPED)
            await heard()
            pulse.look()  # may still hear what was said before
            assert [pulse.look() for _ in range(SILENCES)] == [False] * (SILENCES - 1) + [True]
        finally:
            worker.kill()
            await worker.wait()
            pulse.close()
            os.close(life)
            os.close(life_end)
