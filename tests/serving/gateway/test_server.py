"""The gateway's server between its start and its end."""

import asyncio
import threading

import pytest
import uvicorn

from serving.gateway import server
from serving.gateway.server import Server


async def app(scope: object, receive: object, send: object) -> None:
    raise AssertionError("nobody asks")


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(server, "TICK_S", 3600.0)  # it has to be woken
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    return Server(config)


async def test_server_that_is_told_to_stop_is_woken(idle: Server) -> None:
    running = asyncio.create_task(idle.main_loop())
    await asyncio.sleep(0)
    threading.Thread(target=setattr, args=(idle, "should_exit", True)).start()
    async with asyncio.timeout(30):
        await running


async def test_server_that_was_told_before_does_not_begin_to_wait(idle: Server) -> None:
    idle.should_exit = True
    async with asyncio.timeout(30):
        await idle.main_loop()


async def test_server_knows_the_date_before_its_first_answer(idle: Server) -> None:
    idle.should_exit = True
    await idle.main_loop()
    assert dict(idle.server_state.default_headers)[b"date"].endswith(b"GMT")
