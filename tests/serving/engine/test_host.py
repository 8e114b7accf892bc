"""Hosts as replicas of a real Ray Serve, with a controller in the test's hand."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import uvicorn

from models.manifest import parse_manifest
from serving.protocol import EngineAssignment, EnginePhase, HostRegistration
from tests.processes import still_alive
from tests.serving.engine.fakes import FakeController
from tests.serving.engine.real import Launcher

pytestmark = pytest.mark.engine

PATIENCE_S = 120


@dataclass
class Pool:
    """A pool of one host in a running Ray."""

    process: asyncio.subprocess.Process
    controller: FakeController

    async def take_down(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            while (line := await self.process.stdout.readline()) != b"down\n":
                assert line, "Ray ended before the pool was down"  # Ray itself writes here too
            assert await self.process.wait() == 0


@asynccontextmanager
async def served(controller: FakeController) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(controller.app, log_level="warning", lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await controller.leave()
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def pool(launcher: Launcher, folder: Path) -> AsyncIterator[Pool]:
    controller = FakeController()
    async with served(controller) as url:
        log = (folder / "ray.log").open("wb")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.serving.engine.ray_pool",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=inherited
            | {
                "PENSTOCK_CONTROLLER_URL": url,
                "PENSTOCK_INTERNAL_TOKEN": "internal",
                "PENSTOCK_LAUNCHER_SOCKET": str(launcher.socket),
                "PENSTOCK_LOG_DIR": str(folder),
                "PENSTOCK_CACHE_DIR": str(folder),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_AUTH_MODE": "disabled",
                "RAY_memory_monitor_refresh_ms": "0",
            },
        )
        log.close()
        try:
            assert process.stdout
            async with asyncio.timeout(PATIENCE_S):
                while (line := await process.stdout.readline()) != b"up\n":
                    assert line, (folder / "ray.log").read_text()
            yield Pool(process, controller)
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def registered(pool: Pool, count: int) -> HostRegistration:
    return await pool.controller.wait_for_registrations(count, PATIENCE_S)


async def ready(pool: Pool, tiny_model: Path, engine_id: str) -> psutil.Process:
    manifest = parse_manifest({"name": "tiny", "source": f"file://{tiny_model}"})
    engine = EngineAssignment(engine_id=engine_id, revision=1, manifest=manifest, start_id="s")
    await pool.controller.assign(engine)
    report = await pool.controller.wait_for_phase(EnginePhase.READY, engine_id, PATIENCE_S)
    assert report.pid is not None
    return psutil.Process(report.pid)


def maps(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/maps").read_text()


async def test_hosts_life_under_ray(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    """One story, since Ray takes long to start: serve, lose the host, serve again, go down."""
    async with pool(vllm_launcher, tmp_path) as running:
        first = await registered(running, 1)
        assert (first.pool, first.accelerators) == ("cpu", ())
        assert first.node_age_s is not None, "its raylet is found"
        assert first.node_age_s < PATIENCE_S
        engine = await ready(running, tiny_model, "e1")
        assert engine.ppid() == vllm_launcher.process.pid
        assert "libtorch" in maps(engine)
        assert "libtorch" not in maps(psutil.Process(first.pid))  # no vLLM in a Ray worker

        processes = [engine, *engine.children(recursive=True)]
        psutil.Process(first.pid).kill()
        assert still_alive(processes, PATIENCE_S) == []
        await running.controller.assign(None)
        second = await registered(running, 2)
        assert second.host_id != first.host_id
        assert second.node_age_s is not None
        assert second.node_age_s > first.node_age_s, "it is the same machine"

        engine = await ready(running, tiny_model, "e2")
        processes = [engine, *engine.children(recursive=True)]
        await running.take_down()
        assert still_alive(processes, PATIENCE_S) == []
        assert running.controller.phases("e2")[-2:] == [EnginePhase.DRAINING, EnginePhase.STOPPED]
