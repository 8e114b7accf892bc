"""The gateway as a process: where it listens, what it says, how it stops."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import chat
from tests.serving.gateway.fake_controller import TENANT_KEY, TOKEN, FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

HEADERS = {"Authorization": f"Bearer {TENANT_KEY}"}


@asynccontextmanager
async def process(**settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("PENSTOCK_")}
    env = inherited | {f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "serving.gateway.app", env=env, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def line_with(started: asyncio.subprocess.Process, event: str) -> Mapping[str, object]:
    assert started.stderr is not None
    async with asyncio.timeout(60):
        while line := await started.stderr.readline():
            said: Mapping[str, object] = json.loads(line)
            if said["event"] == event:
                return said
    raise AssertionError(f"the gateway ended without saying {event}")


def settings_of(controller: FakeController, folder: Path) -> dict[str, str]:
    return {
        "gateway_port": "0", "controller_url": controller.url, "internal_token": TOKEN,
        "gateway_state_dir": str(folder), "drain_timeout_s": "5",
    }  # fmt: skip


async def test_process_says_where_it_listens_and_ends_streams_before_it_stops(
    controller: FakeController, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.default = fake_engine.stalls_mid_stream
    controller.set_routes(model("demo", engine.route))
    async with process(**settings_of(controller, tmp_path)) as gateway:
        url = str((await line_with(gateway, "listening"))["url"])
        async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=30) as client:
            while (await client.get("/ready")).status_code != 200:
                pass
            path = "/v1/chat/completions"
            async with client.stream("POST", path, json=chat(stream=True)) as answer:
                parts = answer.aiter_bytes()
                got = await anext(parts)
                gateway.send_signal(signal.SIGTERM)
                await line_with(gateway, "Shutting down")
                engine.go_on.set()
                got += b"".join([part async for part in parts])
        assert got == b"".join(fake_engine.STREAM)
        async with asyncio.timeout(30):
            assert await gateway.wait() == 0


async def test_stream_that_outlasts_the_drain_time_ends_in_an_error_event(
    controller: FakeController, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.default = fake_engine.stalls_mid_stream
    controller.set_routes(model("demo", engine.route))
    settings = settings_of(controller, tmp_path) | {"drain_timeout_s": "1"}
    async with process(**settings) as gateway:
        url = str((await line_with(gateway, "listening"))["url"])
        async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=30) as client:
            while (await client.get("/ready")).status_code != 200:
                pass
            path = "/v1/chat/completions"
            async with client.stream("POST", path, json=chat(stream=True)) as answer:
                parts = answer.aiter_bytes()
                got = await anext(parts)
                gateway.send_signal(signal.SIGTERM)
                got += b"".join([part async for part in parts])
        assert json.loads(got.split(b"data: ")[-1])["error"]["code"] == "unavailable"
        async with asyncio.timeout(30):
            assert await gateway.wait() == 0


async def test_taken_port_is_one_clear_line_and_an_exit_code(
    controller: FakeController, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = settings_of(controller, tmp_path) | {"gateway_port": port}
        async with process(**settings) as gateway:
            said = await line_with(gateway, "not_started")
            assert await gateway.wait() != 0
    assert port in str(said["reason"])
    assert said["hint"]


async def test_missing_token_is_named(tmp_path: Path) -> None:
    async with process(gateway_port="0", gateway_state_dir=str(tmp_path)) as gateway:
        said = await line_with(gateway, "not_started")
        assert await gateway.wait() == 2
    assert "PENSTOCK_INTERNAL_TOKEN" in str(said["reason"])
