"""The controller's process: how it starts, how it refuses to, how it ends."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.errors import PenstockError
from serving.controller.app import running, serve
from tests.serving.controller.fake_ray import FakeRay
from tests.serving.controller.world import settings

COMMAND = (sys.executable, "-m", "serving.controller.app")


@asynccontextmanager
async def started(tmp_path: Path, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        "PENSTOCK_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/penstock.db",
        "PENSTOCK_INTERNAL_TOKEN": "internal-token",
        "PENSTOCK_CONTROLLER_PORT": "0",
        **more,
    }
    process = await asyncio.create_subprocess_exec(
        *COMMAND, env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def lines(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stderr is not None
    async for line in process.stderr:
        yield json.loads(line)  # each line is JSON, or the test fails


async def listening(process: asyncio.subprocess.Process) -> str:
    async for line in lines(process):
        if line["event"] == "listening":
            return f"http://{line['host']}:{line['port']}"
    raise AssertionError("the controller never listened")


async def refusal(tmp_path: Path, **more: str) -> tuple[int, dict[str, Any]]:
    async with started(tmp_path, **more) as process:
        told = [line async for line in lines(process)]
        status = await process.wait()
    (refused,) = [line for line in told if line["event"] == "cannot_start"]
    assert told[-1] == refused
    return status, refused


async def test_controller_tells_its_port_and_ends_on_sigterm_with_status_0(tmp_path: Path) -> None:
    async with started(tmp_path) as process:
        url = await listening(process)
        headers = {"authorization": "Bearer internal-token"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            assert (await client.get("/health")).json() == {"status": "ok"}
            version = (await client.get("/internal/v1/routes")).json()["version"]
            poll = asyncio.create_task(client.get(f"/internal/v1/routes?after={version}"))
            await asyncio.wait({poll}, timeout=0.1)
            assert (await client.get("/health")).is_success  # it has read what came before that
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                assert (await poll).json()["version"] == version
                assert await process.wait() == 0


async def test_controller_is_refused_a_port_in_use_in_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, line = await refusal(tmp_path, PENSTOCK_CONTROLLER_PORT=port)
    assert status == 5
    assert line["error"] == f"port {port} on 127.0.0.1 is in use"
    assert "PENSTOCK_CONTROLLER_PORT" in line["hint"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"database_url": "sqlite+aiosqlite:////nowhere/p.db"}, "unable to open database"),
        ({"controller_host": "192.0.2.1"}, "cannot listen on 192.0.2.1"),
        ({"pools": {"gpu": 1}}, "'gpu' is no shape"),
    ],
)
async def test_controller_refuses_to_start_with_a_hint(
    database_url: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(PenstockError, match=message) as caught:
        await serve(settings(**{"database_url": database_url, **fields}))
    assert caught.value.hint


async def test_controller_makes_its_pools_at_start(database_url: str, tmp_path: Path) -> None:
    ray = FakeRay()
    token_path = tmp_path / "token"
    token_path.write_text(ray.token)
    where = settings(
        database_url=database_url, ray_dashboard_url="http://ray", ray_token_path=token_path
    )
    async with running(where, httpx.ASGITransport(ray.app)) as controller:
        async with asyncio.timeout(30):
            while not ray.puts:  # noqa: ASYNC110 - the fake has no event
                await asyncio.sleep(0.01)  # the fake has no event
        assert not controller.broken
    assert ray.puts[0]["applications"][0]["name"] == "penstock-cpu"


async def test_controller_ends_when_its_loop_dies(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(settings(database_url=database_url)) as controller:

        def broken() -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(controller.loop, "step", broken)
        controller.loop.kick()
        async with asyncio.timeout(30):
            while not controller.broken:  # noqa: ASYNC110 - the server looks each 0.1 s
                await asyncio.sleep(0.01)  # seen at the server's next tick
