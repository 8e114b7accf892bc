"""Who is whose child, and what is left when one of them is killed."""

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from openai import OpenAI

from tests.platform.platform import Platform, eventually, port_is_free
from tests.processes import is_alive

pytestmark = pytest.mark.engine

QUESTION = [{"role": "user", "content": "What is Penstock?"}]


def ask(client: OpenAI) -> str:
    answer = client.with_options(timeout=90).chat.completions.create(
        model="guide", messages=QUESTION, temperature=0
    )
    return answer.choices[0].message.content or ""


def engine_pid(platform: Platform) -> int:
    """The engine that has just answered; what is listed may be older than its answer."""

    seen: list[object] = []

    def pid() -> int | None:
        engines = [e for e in platform.items("engines") if e["model"] == "guide"]
        seen[:] = [(e["engine_id"], e["phase"], e["revision"]) for e in engines]
        return next((e["pid"] for e in engines if e["phase"] == "ready"), None)

    try:
        return int(eventually(pid, 10, "guide has an engine") or 0)
    except AssertionError:
        raise AssertionError(f"no engine of guide is ready: {seen}") from None


def part_pid(platform: Platform, module: str) -> int:
    return platform.part(module).pid


def kill(pid: int) -> psutil.Process:
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    return process


def test_ray_workers_hold_no_vllm(platform: Platform, client: OpenAI) -> None:
    ask(client)
    hosts = 0
    for process in platform.processes():
        with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):  # it has ended
            if process.name().startswith("ray::"):
                named = process.name() + " ".join(process.cmdline())
                maps = Path(f"/proc/{process.pid}/maps").read_text()
                assert not re.search(r"site-packages/(vllm|torch)/", maps), named
                hosts += "EngineHost" in named
    assert hosts


def test_engine_is_a_child_of_the_launcher(platform: Platform, client: OpenAI) -> None:
    ask(client)
    launcher = part_pid(platform, "serving.engine.launcher")
    assert psutil.Process(engine_pid(platform)).ppid() == launcher


def test_engine_killed_is_replaced(platform: Platform, client: OpenAI) -> None:
    before = ask(client)
    family = [psutil.Process(engine_pid(platform))]
    family += family[0].children(recursive=True)
    kill(family[0].pid)
    assert ask(client) == before
    eventually(lambda: not any(map(is_alive, family)), 10, "the whole engine is gone")


def test_host_killed_is_replaced(platform: Platform, client: OpenAI) -> None:
    before = ask(client)
    engine = psutil.Process(engine_pid(platform))
    family = [engine, *engine.children(recursive=True)]
    bound = next(h for h in platform.items("hosts") if h["model"] == "guide")
    kill(bound["pid"])
    assert ask(client) == before
    eventually(lambda: not any(map(is_alive, family)), 10, "the old engine is gone")
    eventually(
        lambda: bound["host_id"] not in [h["host_id"] for h in platform.items("hosts")],
        15,
        "the dead host is forgotten",
    )


def test_launcher_killed_is_replaced(platform: Platform, client: OpenAI) -> None:
    before = ask(client)
    engine = psutil.Process(engine_pid(platform))
    family = [engine, *engine.children(recursive=True)]
    kill(part_pid(platform, "serving.engine.launcher"))
    eventually(lambda: not any(map(is_alive, family)), 10, "engines end with their launcher")
    assert ask(client) == before


def test_controller_killed_restarts_nothing(platform: Platform, client: OpenAI) -> None:
    before = ask(client)
    engine = engine_pid(platform)
    controller = kill(part_pid(platform, "serving.controller.app"))
    for _ in range(10):
        assert ask(client) == before
        time.sleep(0.1)
    eventually(lambda: not is_alive(controller), 5, "the old controller is gone")

    def adopted() -> bool:
        try:
            return engine_pid(platform) == engine
        except (AssertionError, StopIteration):
            return False

    eventually(adopted, 30, "the new controller adopts the engine")
    assert ask(client) == before


def test_gateway_killed_comes_back(platform: Platform, client: OpenAI) -> None:
    before = ask(client)
    kill(part_pid(platform, "serving.gateway.app"))

    def ready() -> bool:
        try:
            return httpx.get(f"{platform.url}/ready", timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    eventually(ready, 20, "the gateway is back on its port")
    assert ask(client) == before


def test_two_platforms_side_by_side_and_nothing_left_of_one_whose_supervisor_died(
    platform: Platform, client: OpenAI, tmp_path: Path
) -> None:
    second = Platform(tmp_path / "second", "second-admin-key", "second-tenant-key")
    second.up()
    try:
        port = int(second.url.rsplit(":", 1)[1])
        assert second.url != platform.url
        models = httpx.get(
            f"{second.url}/v1/models",
            headers={"Authorization": "Bearer second-tenant-key"},
            timeout=30,
        )
        assert models.status_code == 200
        assert not port_is_free(port)
        again = second.penstock("up", "--detach", "--port", "0", "--data-dir", str(second.data_dir))
        assert again.returncode != 0
        assert "hint:" in again.stderr
        kill(second.state["pid"])  # the supervisor; the session's own platform ends with its own
    finally:
        second.down()
    assert second.leftovers() == []
    assert port_is_free(port)
    assert ask(client)


def test_port_in_use_is_told_with_a_hint(platform: Platform, tmp_path: Path) -> None:
    taken = platform.url.rsplit(":", 1)[1]
    done = platform.penstock(
        "up", "--detach", "--port", taken, "--data-dir", str(tmp_path / "third")
    )
    assert done.returncode != 0
    assert taken in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
