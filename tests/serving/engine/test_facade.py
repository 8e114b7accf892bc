"""An app that is built in a thread, without an event loop."""

import asyncio
import threading

import pytest

from serving.engine.facade import Facade


async def build(engine: str, tasks: tuple[str, ...]) -> tuple[str, str]:
    if engine == "waits":
        await asyncio.sleep(0)
    if engine == "broken":
        raise ValueError("no such parser")
    return f"{engine} {tasks[0]}", threading.current_thread().name


def test_facade_is_built_beside_its_caller() -> None:
    facade = Facade(build)
    assert not facade.begun
    facade.begin("engine", ("generate",))
    assert facade.begun
    assert facade.app() == ("engine generate", "facade")


@pytest.mark.parametrize(("engine", "error"), [("broken", ValueError), ("waits", RuntimeError)])
def test_facade_tells_why_it_is_not_built(engine: str, error: type[Exception]) -> None:
    facade = Facade(build)
    facade.begin(engine, ("generate",))
    with pytest.raises(error):
        facade.app()
