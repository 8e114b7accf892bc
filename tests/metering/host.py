"""A host without Ray: follows its assignment, runs a fake or a real engine, reads its recorder.

    python -m tests.metering.host HOST_ID FOLDER [LAUNCHER_SOCKET MODEL_FOLDER]

With a launcher's socket the engine is vLLM. `engine.pid` in the folder names what runs.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from pydantic import SecretStr

from models.errors import NotFoundError, UnreachableError
from serving import logs
from serving.engine import recorder
from serving.engine.arguments import vllm_arguments
from serving.engine.controller_client import ControllerClient
from serving.engine.guard import TOKEN_VARIABLE
from serving.engine.launch_protocol import Exited, Forked, Reached, Refused, SpawnRequest
from serving.engine.launcher_client import SocketLauncher
from serving.engine.recorder_reader import FOLDER, RecorderReader, recorder_path
from serving.protocol import (
    EngineAssignment,
    EnginePhase,
    EngineReport,
    HostRegistration,
    HostReport,
    StartPhase,
)
from tests.ports import free_port

TOKEN = "token-of-the-engine"
SLOTS = 12
REPORT_S = 0.3


class Host:
    """One engine at a time; started anew when it dies and the controller says so."""

    def __init__(self, host_id: str, folder: Path, real: tuple[Path, Path] | None) -> None:
        self._host_id = host_id
        self._folder = folder
        self._real = real
        url, token = os.environ["PENSTOCK_CONTROLLER_URL"], os.environ["PENSTOCK_INTERNAL_TOKEN"]
        self._controller = ControllerClient(url, SecretStr(token))
        self._reader = RecorderReader(folder / FOLDER, self._controller.attempts)
        self._report: EngineReport | None = None
        self._run: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._runs = 0

    async def main(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        tasks = [
            asyncio.create_task(one) for one in (self._follow(), self._tell(), self._reader.run())
        ]
        await self._stop.wait()
        for task in (*tasks, *([self._run] if self._run else [])):
            task.cancel()
        await asyncio.gather(*tasks, *([self._run] if self._run else []), return_exceptions=True)
        await self._reader.step()
        await self._controller.close()

    async def _register(self) -> None:
        running = self._report if self._report and self._report.phase is EnginePhase.READY else None
        await self._controller.register(
            HostRegistration(host_id=self._host_id, pool="cpu", node=self._host_id,
                             address="127.0.0.1", pid=os.getpid(), engine=running)
        )  # fmt: skip

    async def _tell(self) -> None:
        while True:
            try:
                told = HostReport(engine=self._report)
                if not (await self._controller.report(self._host_id, told)).known:
                    await self._register()
            except NotFoundError:
                with contextlib.suppress(UnreachableError):
                    await self._register()
            except UnreachableError:
                pass
            await asyncio.sleep(REPORT_S)

    async def _follow(self) -> None:
        version = 0
        while True:
            try:
                assignment = await self._controller.assignment(self._host_id, version)
            except (NotFoundError, UnreachableError):
                await asyncio.sleep(REPORT_S)
                continue
            version = assignment.version
            wanted = assignment.engine
            now = self._report.engine_id if self._report else None
            if (wanted.engine_id if wanted else None) == now:
                continue
            if self._run is not None:
                self._run.cancel()
                await asyncio.gather(self._run, return_exceptions=True)
                self._run = self._report = None
            if wanted is not None:
                self._run = asyncio.create_task(self._lead(wanted))

    async def _lead(self, wanted: EngineAssignment) -> None:
        self._set(wanted, EnginePhase.STARTING)
        lead = self._lead_fake if self._real is None else self._lead_real
        try:
            await lead(wanted)
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            self._set(wanted, EnginePhase.FAILED, error=repr(exc))
            raise
        self._set(wanted, EnginePhase.FAILED, error="the engine died")

    async def _lead_fake(self, wanted: EngineAssignment) -> None:
        port = free_port()
        self._runs += 1
        path = recorder_path(self._folder, wanted.engine_id)
        tally = self._folder / f"{wanted.engine_id}.tally"
        log = (self._folder / "engine.log").open("ab")
        engine = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.metering.engine", str(port), str(tally), str(self._runs),
            env={**os.environ, TOKEN_VARIABLE: TOKEN, recorder.PATH_VARIABLE: str(path)},
            stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        try:
            await _listens(port)
            self._ready(wanted, engine.pid, port, 4096)
            await engine.wait()
        finally:
            if engine.returncode is None:
                engine.terminate()
                await engine.wait()

    async def _lead_real(self, wanted: EngineAssignment) -> None:
        assert self._real is not None
        launcher_socket, model = self._real
        path = recorder_path(self._folder, wanted.engine_id)
        request = SpawnRequest(
            engine_id=wanted.engine_id, args=vllm_arguments(wanted.manifest, model),
            environment={recorder.PATH_VARIABLE: str(path)}, token=TOKEN,
            log_path=self._folder / "engine.log", memory_gib=1.0, mode="fork",
        )  # fmt: skip
        lease = await SocketLauncher(launcher_socket).spawn(request)
        born: Forked | None = None
        try:
            async for event in lease.events():
                match event:
                    case Forked():
                        born = event
                    case Reached() if event.phase is StartPhase.PROBED and born is not None:
                        self._ready(wanted, born.pid, born.port, event.max_model_len or 512)
                    case Refused() | Exited():
                        return
        finally:
            lease.give_up()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(30):
                    async for _ in lease.events():
                        pass
            await lease.close()

    def _ready(self, wanted: EngineAssignment, pid: int, port: int, length: int) -> None:
        (self._folder / "engine.pid").write_text(str(pid))
        self._set(wanted, EnginePhase.READY, url=f"http://127.0.0.1:{port}", token=TOKEN,
                  slots=SLOTS, max_model_len=length, pid=pid)  # fmt: skip

    def _set(self, wanted: EngineAssignment, phase: EnginePhase, **fields: object) -> None:
        self._report = EngineReport.model_validate({
            "engine_id": wanted.engine_id, "model": wanted.manifest.name,
            "revision": wanted.revision, "phase": phase, **fields,
        })  # fmt: skip


async def _listens(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


if __name__ == "__main__":
    logs.configure("host")
    given = [Path(argument) for argument in sys.argv[2:]]
    asyncio.run(Host(sys.argv[1], given[0], (given[1], given[2]) if given[1:] else None).main())
