"""Carries out trials: an engine of this node's launcher, and the load tests' ladder against it.

The engine is the one that the platform would start: the same command line, the same launcher.
"""

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from models.errors import UnreachableError, UpstreamError
from models.manifest import Manifest
from serving.background import cancel
from serving.engine.arguments import vllm_arguments, vllm_environment
from serving.engine.engine_client import EngineClient
from serving.engine.launch_protocol import Exited, Forked, Reached, Refused, SpawnRequest
from serving.engine.launcher_client import Launcher, Lease
from serving.engine.load_format import formats_for
from serving.protocol import StartPhase
from serving.tuning.space import applied
from serving.tuning.trials import Figures, Settings, TrialError

GONE_TIMEOUT_S = 30.0
"""Patience with an engine that has to end; closing its lease is the last word."""
SAID_BYTES = 600
GOES_ON = "what was measured is kept, and the same command goes on; see the launcher.log of the run"


@dataclass(frozen=True, slots=True)
class Load:
    """What a trial asks of an engine."""

    concurrencies: tuple[int, ...]
    prompt_tokens: int = 64
    answer_tokens: int = 64
    prefill_tokens: int = 512
    """Tokens of the prompts that are measured alone."""


@dataclass(frozen=True, slots=True)
class EngineRunner:
    """Runs trials one after the other; see `serving.tuning.trials.Runner`."""

    launcher: Launcher
    manifest: Manifest
    folder: Path
    """The weights."""
    log_dir: Path
    load: Load
    accelerators: tuple[str, ...] = ()
    start_timeout_s: float = 300.0
    ladder_timeout_s: float = 600.0
    command: Sequence[str] = (sys.executable, "-P", "-m", "loadtests.ladder")
    """What measures; a process of its own, so that it shares no event loop with anything."""

    async def run(self, settings: Settings, rounds: int, seed: int) -> Figures:
        """See `Runner.run`."""
        try:
            manifest = applied(self.manifest, settings)
        except ValidationError as exc:
            raise TrialError(f"no manifest may have this: {exc.errors()[0]['msg']}") from exc
        token, number = secrets.token_urlsafe(32), secrets.token_hex(4)
        request = SpawnRequest(
            engine_id=f"tune-{number}",
            args=vllm_arguments(manifest, self.folder, formats_for(manifest, self.folder)),
            environment=vllm_environment(manifest, self.accelerators),
            token=token,
            log_path=(self.log_dir / f"tune-{number}.log").absolute(),
            memory_gib=manifest.resources.memory_gib,
            gpus=self.accelerators,
            mode=manifest.engine.spawn,
        )
        try:
            lease = await self.launcher.spawn(request)
        except UnreachableError as exc:
            raise UnreachableError(f"the launcher is gone: {exc}", hint=GOES_ON) from exc
        life = _Life(lease)
        following = asyncio.create_task(life.follow())
        try:
            async with asyncio.timeout(self.start_timeout_s):
                url = await life.ready(manifest.name, token)
            return await self._measure(url, token, life, rounds, seed)
        except TimeoutError as exc:
            raise TrialError(f"not ready within {self.start_timeout_s:.0f} s") from exc
        except UpstreamError as exc:
            raise exc if isinstance(exc, TrialError) else TrialError(str(exc)) from exc
        finally:
            lease.give_up()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GONE_TIMEOUT_S):
                    await asyncio.wait({following})
            await cancel(following)
            await lease.close()

    async def _measure(
        self, url: str, token: str, life: "_Life", rounds: int, seed: int
    ) -> Figures:
        load = self.load
        ladder = await asyncio.create_subprocess_exec(
            *self.command, url, "--model", self.manifest.name,
            "--levels", *map(str, load.concurrencies), "--rounds", str(rounds),
            "--input-tokens", str(load.prompt_tokens), "--output-tokens", str(load.answer_tokens),
            "--prefill-tokens", str(load.prefill_tokens), "--seed", str(seed),
            env=_environment(token), stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told = asyncio.create_task(ladder.communicate())
        died = asyncio.create_task(life.ended.wait())
        try:
            await asyncio.wait(
                {told, died}, timeout=self.ladder_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not told.done():
                why = life.cause or f"no figures within {self.ladder_timeout_s:.0f} s"
                raise TrialError(why)
            out, said = told.result()
        finally:
            died.cancel()
            if ladder.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    ladder.kill()
            await asyncio.gather(told, died, return_exceptions=True)
        if ladder.returncode != 0:
            why = life.cause or said[-SAID_BYTES:].decode(errors="replace").strip()
            raise TrialError(why or f"the load test ended with {ladder.returncode}")
        return _read(out)


class _Answer(BaseModel):
    """What the ladder prints."""

    levels: tuple[dict[str, object], ...]
    prefill_tokens_s: float | None = None


def _read(out: bytes) -> Figures:
    try:
        return Figures.model_validate(_Answer.model_validate_json(out).model_dump())
    except ValidationError as exc:
        raise TrialError("the load test's answer cannot be read") from exc


def _environment(token: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    return kept | {"PENSTOCK_API_KEY": token}


class _Life:
    """What the launcher tells of one engine."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._born: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._probed = asyncio.Event()
        self.ended = asyncio.Event()
        self.cause: str | None = None
        """Why it ended."""

    async def follow(self) -> None:
        """Takes in what is told, until the engine is gone."""
        async for event in self._lease.events():
            match event:
                case Forked():
                    self._born.set_result(event)
                case Reached(phase=StartPhase.PROBED):
                    self._probed.set()
                case Refused(reason=reason):
                    self.cause = reason
                    break
                case Exited(cause=cause):
                    self.cause = cause
        self.cause = self.cause or "the launcher went away"
        self.ended.set()

    async def ready(self, model: str, token: str) -> str:
        """The engine's URL, when it answers.

        Raises:
            TrialError: If it ends before that.
        """
        await self._or_end(asyncio.shield(self._born))
        born = self._born.result()
        url = f"http://127.0.0.1:{born.port}"
        if born.mode != "exec":
            await self._or_end(self._probed.wait())
            return url
        client = EngineClient(url, token)  # an executed engine does not tell
        try:
            await self._or_end(client.wait_until_it_listens())
            await client.probe(model)
        finally:
            await client.close()
        return url

    async def _or_end(self, wanted: object) -> None:
        wait = asyncio.ensure_future(wanted)  # type: ignore[call-overload]
        ended = asyncio.create_task(self.ended.wait())
        try:
            await asyncio.wait({wait, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not wait.done():
                raise TrialError(self.cause or "the engine ended")
            wait.result()
        finally:
            await cancel(wait, ended)
